"""What every provider must hold of handshakes: who hears whose address it is. See conformance_cases.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backhaul_channels import Adapter, Answer, RawCallback
from conformance_cases import ADAPTERS, Case, body_of, callback_of, case_files, each_adapter, event_cases
from hypothesis import given
from hypothesis import strategies as st

ASKING = {name: one for name, one in ADAPTERS.items() if type(one).handshake is not Adapter.handshake}
"""Those that ask whether the address is the tenant's before they post events."""

each_asking = pytest.mark.parametrize("adapter", ASKING.values(), ids=ASKING.keys())


def handshake_file(provider: str) -> Case:
    found = [path for path in case_files(provider) if path.name == "handshake.json"]
    assert found, f"providers/{provider} has no tests/cases/handshake.json"
    content: Case = json.loads(found[0].read_text("utf-8"))
    return content


def handshake_params() -> list[Any]:
    return [
        pytest.param(adapter, case, id=f"{provider}-{case['name']}")
        for provider, adapter in ASKING.items()
        for case in handshake_file(provider)["cases"]
    ]


def answer_to(adapter: Adapter[Any], secrets: list[str], callback: RawCallback) -> Case | None:
    answer = adapter.handshake(callback, secrets, adapter.settings_model())
    if answer is None:
        return None
    assert isinstance(answer, Answer)
    assert answer.content_type or not answer.body
    # A provider that is told one of the secrets was not the one who knew it.
    assert not [secret for secret in secrets if secret.strip() and secret.strip().encode() in answer.body]
    return {"status": answer.status, "content_type": answer.content_type, "body": answer.body.decode()}


def expected(case: Case) -> Case | None:
    answer = case["answer"]
    return answer if answer is None else {"status": 200, "content_type": "", "body": "", **answer}


@each_adapter
def test_who_asks_has_cases_and_nobody_else(adapter: Adapter[Any]) -> None:
    has_cases = any(path.name == "handshake.json" for path in case_files(adapter.provider))
    assert has_cases == (adapter.provider in ASKING)


@pytest.mark.parametrize(("adapter", "case"), handshake_params())
def test_handshake_case(adapter: Adapter[Any], case: Case) -> None:
    assert answer_to(adapter, case["secrets"], callback_of(case)) == expected(case)


@each_asking
def test_a_question_is_answered_by_who_knows_a_secret_alone(adapter: Adapter[Any]) -> None:
    content = handshake_file(adapter.provider)
    good = [case for case in content["cases"] if (case["answer"] or {}).get("status", 0) == 200]
    assert good, "without a question that is answered there is nothing to derive bad ones from"
    assert [case for case in content["cases"] if case["answer"] and case["answer"].get("status", 200) >= 400]
    assert [case for case in content["cases"] if case["answer"] is None]
    another = content["another_secret"]
    for case in good:
        callback = callback_of(case)
        # Any of several secrets is known while they rotate.
        for secrets in ([another, *case["secrets"]], ["", *case["secrets"], another]):
            assert answer_to(adapter, secrets, callback) == expected(case), case["name"]
        for secrets in ([], [""], [" "], [another]):
            refused = answer_to(adapter, secrets, callback)
            assert refused is not None
            assert refused["status"] >= 400, case["name"]


@each_asking
def test_an_event_is_no_question(adapter: Adapter[Any]) -> None:
    """Or it would be answered before anybody verified and stored it."""
    secrets = [secret for case in handshake_file(adapter.provider)["cases"] for secret in case["secrets"]]
    for case in event_cases(adapter.provider):
        assert answer_to(adapter, secrets, callback_of(case)) is None, case["name"]


@each_asking
@given(data=st.data())
def test_no_question_raises(adapter: Adapter[Any], data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(handshake_file(adapter.provider)["cases"]))
    body = body_of(case)
    at = data.draw(st.integers(0, len(body)))
    spliced = body[:at] + data.draw(st.binary(max_size=6)) + body[at + data.draw(st.integers(0, 6)) :]
    callback = RawCallback(
        method=data.draw(st.sampled_from(["POST", "GET", ""])),
        url=data.draw(st.sampled_from([callback_of(case).url, "", "https://[::1"]) | st.text()),
        headers=data.draw(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=80)), max_size=4)),
        body=data.draw(st.sampled_from([body, spliced, body * 2]) | st.binary()),
    )
    answer_to(adapter, case["secrets"], callback)
