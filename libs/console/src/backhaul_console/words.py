"""The API's words, as people read them: ``{{ channel.standing | words }}``.

What is plain English already stays as it is, and so does a word that is not known: a newer service may say it. Colours
go by the API's own word (``mood``). Where one word means different things, say of what it is: ``words("silence")``.
"""

from __future__ import annotations

from backhaul_console.texts import _

_TOLD = {
    "not_installed": _("not installed"),
    # How a channel stands.
    "no_api": _("has no API to ask"),
    "no_credentials": _("no credentials"),
    "credentials_refused": _("credentials refused"),
    "standing.asked": _("asked regularly"),
    "standing.off": _("switched off"),
    "silence.none": _("callbacks come"),
    "cannot_be_told": _("cannot be told"),
    "verification.off": _("not verified"),
    "verification.observe": _("observed only"),
    "verification.enforce": _("enforced"),
    "observed_invalid": _("signature bad or missing"),
    "cannot_be_closed": _("cannot be closed"),
    "unknown_to_provider": _("unknown to the provider"),
    "difference.state": _("another state"),
    # Events and messages.
    "source.callback": _("a callback"),
    "source.backfill": _("reconciliation"),
    "source.replay": _("a replay"),
    "source.sender": _("the sender"),
    "verified": _("signature verified"),
    "credential": _("by its credential"),
    "no_answer": _("no answer"),
    "blocked_credit": _("blocked: no credit"),
    "duplicate_blocked": _("blocked as a duplicate"),
    "InvalidNumber": _("Invalid number"),
    "fulfilment_state": _("fulfilment state"),
    "opt_out": _("opt-out"),
    "opt_in": _("opt-in"),
    "survey_response": _("survey response"),
    "messaging_service": _("messaging service"),
    "error.hard": _("The address will never work."),
    "error.suppress": _("The person does not want messages."),
    "error.transient": _("Another try may work."),
    "error.carrier": _("The network is the reason."),
    "error.content": _("What was sent is the reason."),
    "error.account": _("The sender's own account or set-up is the reason."),
    "error.channel": _("Not on this channel, which says nothing about the person."),
    # Communications.
    "completes.processed": _("every message was sent, or failed"),
    "completes.final": _("every message is in its last state"),
    "completed.condition": _("as its condition held"),
    "completed.deadline": _("at its deadline"),
    # Suppression, and replays.
    "hard_bounce": _("hard bounce"),
    "invalid_address": _("invalid address"),
    "provider_block": _("blocked by the provider"),
    "dead_letters": _("dead letters"),
    "replay.refused_again": _("refused again"),
    "replay.dead_letters": _("dead letters to send through"),
    "replay.discard": _("dead letters to discard"),
    # What applications are told.
    "never_attempted": _("never attempted"),
    "request_invalid": _("the address or a header cannot be used"),
    "url_refused": _("address not allowed"),
    "dns_failed": _("name not found"),
    "address_refused": _("network address not allowed"),
    "connect_failed": _("not reachable"),
    "connect_timeout": _("no connection in time"),
    "tls_failed": _("no encrypted connection"),
    "timeout": _("no answer in time"),
    "reset": _("connection ended by the endpoint"),
    "protocol_error": _("answer is no proper HTTP"),
    "headers_too_large": _("answer's headers too large"),
    "proxy_failed": _("the proxy failed"),
    "no_room": _("no room at Backhaul"),
}


def words(word: str | None, of: str = "") -> str:
    """A word of the API as people read it; a dash where there is none."""
    if not word:
        return "\N{EN DASH}"
    return _TOLD.get(f"{of}.{word}") or _TOLD.get(word, word)
