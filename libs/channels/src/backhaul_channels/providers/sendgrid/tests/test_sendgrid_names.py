"""What a message is called: one mail to one person, by each name that an event of it may bring."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backhaul_channels import Context, NormalizedEvent
from backhaul_channels.providers.sendgrid import ADAPTER
from backhaul_channels.providers.sendgrid.settings import SendGridSettings
from hypothesis import given
from hypothesis import strategies as st

ARGUMENT_FIRST = SendGridSettings(message_id_from=("my_message_id", "sg_message_id", "smtp-id"))
SG = "wrfRRvF7Q0GgwUo2CvDmEA.recvd-5f54b5d587-pczjm-1-67BADEEA-6.0"
SMTP = "wrfRRvF7Q0GgwUo2CvDmEA@geopod-ismtpd-1"


def normalized(settings: SendGridSettings | None = None, /, **fields: Any) -> NormalizedEvent:
    body = {"event": "delivered", "timestamp": 1, "sg_event_id": "e", **fields}
    return ADAPTER.normalize(json.dumps(body).encode(), Context(settings or SendGridSettings()))


def test_an_asynchronous_bounce_has_a_name_that_the_delivery_lists() -> None:
    delivered = normalized(email="User@Example.com", sg_message_id=SG, **{"smtp-id": f"<{SMTP}>"})
    bounce = normalized(event="bounce", email="user@example.com", status="5.1.1", **{"smtp-id": SMTP})
    assert (delivered.message_id, delivered.provisional) == (SG, False)
    assert bounce.provisional
    assert delivered.aliases == [bounce.message_id] == ["wrfRRvF7Q0GgwUo2CvDmEA:user@example.com"]


def test_an_asynchronous_bounce_joins_a_mail_that_an_argument_names() -> None:
    for settings in (ARGUMENT_FIRST, SendGridSettings(message_id_from=("my_message_id",))):
        mail: dict[str, Any] = {
            "email": "a@example.com",
            "sg_message_id": SG,
            "smtp-id": SMTP,
            "my_message_id": "order-77",
        }
        delivered = normalized(settings, **mail)
        bounce = normalized(settings, event="bounce", email="a@example.com", **{"smtp-id": SMTP})
        opened = normalized(settings, event="open", email="a@example.com", sg_message_id=SG)
        assert delivered.message_id == "order-77:a@example.com"
        assert not delivered.provisional
        assert bounce.provisional
        assert opened.provisional
        assert {bounce.message_id, opened.message_id} == set(delivered.aliases)


def test_one_argument_for_several_people_names_several_messages() -> None:
    names = [
        normalized(ARGUMENT_FIRST, email=who, my_message_id="order-77") for who in ("a@x.com", "b@x.com", "A@X.com")
    ]
    assert [name.message_id for name in names] == ["order-77:a@x.com", "order-77:b@x.com", "order-77:a@x.com"]
    assert {tuple(name.references) for name in names} == {("order-77",)}


def test_one_smtp_id_for_several_people_names_several_messages() -> None:
    names = {normalized(email=f"{who}@example.com", **{"smtp-id": SMTP}).message_id for who in "abc"}
    assert names == {f"wrfRRvF7Q0GgwUo2CvDmEA:{who}@example.com" for who in "abc"}
    # That of a mail server of one's own says nothing of X-Message-Id.
    names = {normalized(email=f"{who}@example.com", **{"smtp-id": "<1@shop.example>"}).message_id for who in "ab"}
    assert names == {f"1@shop.example:{who}@example.com" for who in "ab"}


def test_what_names_a_mail_and_nobody_names_no_message_but_is_found() -> None:
    event = normalized(ARGUMENT_FIRST, my_message_id="order-77", **{"smtp-id": f"<{SMTP}>"})
    assert (event.message_id, event.aliases, event.provisional) == ("", [], False)
    assert event.references == ["wrfRRvF7Q0GgwUo2CvDmEA", "order-77", SMTP][1:]


@pytest.mark.parametrize(
    ("sg_message_id", "smtp_id", "short"),
    [
        (SG, SMTP, "wrfRRvF7Q0GgwUo2CvDmEA"),
        (SG, "", "wrfRRvF7Q0GgwUo2CvDmEA"),
        # Older ids have dots before the part that X-Message-Id leaves out.
        ("14c583da911.2c36.1c804d.filter-406.22375.55148AA99.0", "<14c583da911.2c36.1c804d@ismtpd-073>",
         "14c583da911.2c36.1c804d"),
    ],
)  # fmt: skip
def test_x_message_id_finds_the_message(sg_message_id: str, smtp_id: str, short: str) -> None:
    event = normalized(email="a@example.com", sg_message_id=sg_message_id, **{"smtp-id": smtp_id})
    assert short in event.references
    assert event.message_id not in event.references


texts = st.text(max_size=40) | st.sampled_from(["", " ", "<>", "<a>", ".", "m.f.0", "m", "m@x", "<m@x>"])


@given(st.dictionaries(st.sampled_from(["email", "sg_message_id", "smtp-id", "my_message_id"]), texts))
def test_names_are_each_once_bounded_and_never_of_nobody(fields: dict[str, str]) -> None:
    event = normalized(ARGUMENT_FIRST, **fields)
    names = [event.message_id, *event.aliases]
    assert len(set(names)) == len(names)
    assert "" not in event.aliases
    assert event.message_id or not event.aliases
    assert not event.provisional or event.message_id
    assert len(set(event.references)) == len(event.references)
    assert all(0 < len(text) <= 512 and text != event.message_id for text in event.references)


@given(st.dictionaries(st.sampled_from(["email", "sg_message_id", "smtp-id"]), texts))
def test_the_usual_keys_have_no_names_of_their_own_making(fields: dict[str, str]) -> None:
    # A key that no event has changes nothing, but for the shortcut, which only the usual keys take.
    other = SendGridSettings(message_id_from=("sg_message_id", "smtp-id", "never_there"))
    assert normalized(None, **fields) == normalized(other, **fields)
