"""What follows from a reply: consent, a look by a person, or nothing."""

from __future__ import annotations

import msgspec

from backhaul_channels.event import (
    Classification,
    Confidence,
    Consent,
    ConsentAction,
    ConsentBy,
    NormalizedEvent,
    Review,
)
from backhaul_channels.replies.classify import classify
from backhaul_channels.replies.lexicon import is_answer
from backhaul_channels.replies.settings import LikelyStop, ReplySettings


def heard(event: NormalizedEvent, settings: ReplySettings) -> NormalizedEvent:
    """An inbound ``event`` with its classification, and what follows from that. Consent that the provider told stays as
    it is. Pure, and never raises."""
    reply = event.reply
    # A button's text is what the person saw and chose; what is attached to it speaks where there is nothing else.
    texts = [event.text, reply.option, reply.payload] if reply is not None else [event.text]
    first, *others = [text for text in texts if text and not text.isspace()] or [""]
    told = event.consent
    said = classify(first, told.action if told is not None else None, settings, others)
    action = said.action if said is not None else None
    if said is None or action is None:
        return msgspec.structs.replace(event, classification=said)
    where = event.classification
    if where is not None:
        said = msgspec.structs.replace(said, scope_kind=where.scope_kind, scope=where.scope)
    consent, review = told, event.review
    if said.confidence is Confidence.EXACT:
        consent = _consent(said, action)
    elif said.confidence is Confidence.LIKELY and action is ConsentAction.OPT_OUT:
        if settings.likely_stop is LikelyStop.APPLY:
            consent = _consent(said, action)
        elif settings.likely_stop is LikelyStop.FLAG:
            review = Review.FLAGGED
    return msgspec.structs.replace(event, classification=said, consent=consent, review=review)


def _consent(said: Classification, action: ConsentAction) -> Consent:
    only_if_opted_out = action is ConsentAction.OPT_IN and is_answer(said.word)
    return Consent(ConsentBy.KEYWORD, action, said.word, said.scope_kind, said.scope, only_if_opted_out)
