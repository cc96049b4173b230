"""What a page says was done, after the browser was sent on to it. An address has the name, and never the text."""

from __future__ import annotations

from backhaul_console.texts import _

SAID = {
    "done": _("Done."),
    "signed-out": _("You have signed out."),
    "ended": _("Your session has ended. Sign in again."),
    "saved": _("Saved."),
    "revoked": _("Revoked."),
    "gone": _("There is no such thing any more."),
    "deleted": _("Deleted."),
    "paused": _("Paused: what happens now waits."),
    "resumed": _("Resumed: what waits is sent."),
    "sent-again": _("It is sent again, in the background."),
    "channel-made": _("The channel is there. Next: make its address, and paste it at the provider."),
    "sample-stored": _("The sample is stored."),
    "held": _("Callbacks are stored and answered, and wait."),
    "processed": _("Callbacks are processed, also those that waited."),
    "run-begun": _("The run has begun."),
    "deleting": _("It is being deleted. This page is gone when it is over."),
    "left": _("Its pages are closed."),
    "rotated": _("A new key signs from now on."),
    "begun": _("It has begun."),
    "cancelled": _("It is cancelled. What it did stays."),
    "sent-through": _("It is sent through once more. Where it is refused again, it is open again."),
    "discarded": _("It is discarded."),
    "accepted": _("The reply is taken for an opt-out, from when it was written."),
    "dismissed": _("The reply is taken for no opt-out."),
    "suppressed": _("It is recorded: this address is not to be contacted so."),
    "lifted": _("It is lifted."),
    "unchanged": _("It was so already: nothing has changed."),
}
