"""Names: whatever is accepted is legal in a NATS subject, and names that people take for one are one."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from backhaul_common import names
from backhaul_common.errors import BackhaulError, Code
from hypothesis import given
from hypothesis import strategies as st

LEGAL_TOKEN = re.compile(r"[!-)+\-/-=?-~]+")  # Visible ASCII without ``.``, ``*`` and ``>``.
LEGAL_CONSUMER = re.compile(r"[A-Za-z0-9_-]+")

queue_paths = st.from_regex(names.QUEUE_PATH_PATTERN, fullmatch=True)
labels = st.from_regex(names._LABEL, fullmatch=True)
tenant_ids = st.from_regex(names.TENANT_ID_PATTERN, fullmatch=True)


@given(queue_paths, labels)
def test_accepted_names_make_legal_subjects(path: str, label: str) -> None:
    key = names.channel_key(names.check_label(label))
    subject = names.events_subject(names.check_queue_path(path), key, "delivered")
    assert names.callbacks_subject(path, key) == subject.replace("events", "callbacks", 1).removesuffix(".delivered")
    tokens = subject.split(".")
    assert len(tokens) == 4
    assert all(LEGAL_TOKEN.fullmatch(token) for token in tokens)
    assert subject.startswith(names.events_of(path).removesuffix(">"))
    # No channel's key needs escaping as a field name of MongoDB either.
    assert not key.startswith("$")


@given(st.sampled_from(sorted(names.CODED_KINDS)), st.text(max_size=names.MAX_CODE + 3))
def test_any_code_is_one_legal_token_of_bounded_length(kind: str, code: str) -> None:
    *_, token = tokens = names.events_subject("acme", "twilio", kind, code).split(".")
    assert len(tokens) == 5
    assert LEGAL_TOKEN.fullmatch(token)
    assert len(token) <= names.MAX_CODE


def test_codes_are_spelled_as_the_provider_does_but_for_what_a_subject_cannot_hold() -> None:
    spelled = {code: names.code_token(code) for code in ("30006", "5.1.1", "5-1-1", "E_x", "a b*>", "é", "", "9" * 33)}
    assert spelled == {
        "30006": "30006",
        "5.1.1": "5-1-1",
        "5-1-1": "5-1-1",
        "E_x": "E_x",
        "a b*>": "a_b__",
        "é": "_",
        "": names.NO_CODE,
        "9" * 33: names.OTHER_CODE,
    }
    assert names.events_subject("acme", "twilio", "undelivered") == "events.acme.twilio.undelivered.none"
    assert names.events_subject("acme", "twilio", "delivered", "30006") == "events.acme.twilio.delivered"


@given(st.text(max_size=70))
def test_no_text_slips_through(text: str) -> None:
    for check in (names.check_queue_path, names.check_label, names.check_tenant_id):
        with suppress(BackhaulError):
            accepted = check(text)
            assert LEGAL_TOKEN.fullmatch(names.channel_key(accepted))
            assert len(accepted) <= 64


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "a.b",
        "a b",
        "*",
        ">",
        "a>",
        "a\n",
        "\na",
        "ä",
        "a" * 65,
        "a\x00",
        "\U0001d41a",
        "\u0661",
        "a/b",
        "$JS",
        "a\u200b",
    ],
)
def test_refused_queue_paths(bad: str) -> None:
    with pytest.raises(BackhaulError) as caught:
        names.check_queue_path(bad, field="body.queue_path")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.field == "body.queue_path"
    assert caught.value.fix


@pytest.mark.parametrize("bad", ["", " a", "a ", "-a", "a-", "a.b", "a\tb", "a\n", "\u017fms", "a" * 65])
def test_refused_labels(bad: str) -> None:
    with pytest.raises(BackhaulError):
        names.check_label(bad)


@pytest.mark.parametrize("bad", ["", "A", "a.", "-a", "a_", "a\n", "a" * 65, "a b"])
def test_refused_tenant_ids(bad: str) -> None:
    with pytest.raises(BackhaulError):
        names.check_tenant_id(bad)


def test_the_longest_names_are_accepted() -> None:
    assert names.check_queue_path("Q" * 64) == "Q" * 64
    assert names.check_label("L" * 64) == "L" * 64
    assert names.check_tenant_id("t" * 64) == "t" * 64


@given(labels)
def test_case_and_blanks_fold_and_the_key_is_its_own_key(label: str) -> None:
    key = names.channel_key(label)
    assert (
        names.channel_key(label.upper())
        == names.channel_key(label.lower())
        == names.channel_key(label.swapcase())
        == key
    )
    assert names.channel_key(label.replace(" ", "-")) == key
    assert names.channel_key(key) == key


def test_the_labels_of_the_design() -> None:
    assert names.channel_key("Outbound Delivery") == names.channel_key("OUTBOUND-delivery") == "outbound-delivery"
    assert names.channel_key("mPulse") == "mpulse"


@given(queue_paths)
def test_queue_paths_that_differ_in_case_are_one(path: str) -> None:
    assert names.queue_path_key(path.swapcase()) == names.queue_path_key(path)
    assert names.callbacks_of(path.upper()) == names.callbacks_of(path.lower())


def test_a_consumers_name_is_legal() -> None:
    assert LEGAL_CONSUMER.fullmatch(names.NORMALIZER_CONSUMER)


def test_changes_of_tenants_are_stored_in_no_stream() -> None:
    assert not names.TENANT_CHANGED_SUBJECT.startswith(("callbacks.", "events."))
