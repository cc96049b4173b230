"""What a page says was done, after the browser was sent on to it. An address has the name, and never the text."""

from __future__ import annotations

from backhaul_console.texts import _

SAID = {
    "done": _("Done."),
    "signed-out": _("You have signed out."),
    "ended": _("Your session has ended. Sign in again."),
    "saved": _("Saved."),
}
