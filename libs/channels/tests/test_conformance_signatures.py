"""What every provider must hold of requests: who signed them, and how they are answered. See conformance_cases.py."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from backhaul_channels import (
    Adapter,
    InvalidSecretError,
    Proof,
    RawCallback,
)
from backhaul_channels.engines.proofs import BasicSecret
from conformance_cases import ARRIVED_US, SIGNING, UNSIGNED, Case, case_files, each_adapter
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

each_signing = pytest.mark.parametrize("adapter", SIGNING.values(), ids=SIGNING.keys())


def signature_file(provider: str) -> Case:
    found = [path for path in case_files(provider) if path.name == "signatures.json"]
    assert found, f"providers/{provider} has no tests/cases/signatures.json"
    content: Case = json.loads(found[0].read_text("utf-8"))
    return content


def signature_params() -> list[Any]:
    return [
        pytest.param(adapter, case, id=f"{provider}-{case['name']}")
        for provider, adapter in SIGNING.items()
        for case in signature_file(provider)["cases"]
    ]


def request_of(case: Case) -> RawCallback:
    headers = [(name.encode(), value.encode()) for name, value in case["headers"].items()]
    return RawCallback("POST", case["url"], headers, case["body"].encode(), case.get("received_at_us", ARRIVED_US))


def settings_of(adapter: Adapter[Any], case: Case) -> Any:
    return adapter.settings_model.model_validate(case.get("settings", {}))


def header_of(content: Case, case: Case) -> str:
    """The header that a case's signature is in; that of all cases, unless its settings name another."""
    return str(case.get("signature_header") or content["signature_header"])


def another_secret(content: Case, case: Case) -> str:
    """A secret that signed none of the cases, of the kind that the case's settings ask for."""
    return str(case.get("another_secret") or content["another_secret"])


def with_signature(callback: RawCallback, header: str, value: bytes | None) -> RawCallback:
    others = [(name, old) for name, old in callback.headers if name != header.encode()]
    return replace(callback, headers=others if value is None else [*others, (header.encode(), value)])


def refusal_code(adapter: Adapter[Any], secrets: list[str], callback: RawCallback, settings: Any = None) -> str | None:
    refusal = adapter.verifier(secrets, settings or adapter.settings_model()).verify(callback)
    if refusal is None:
        return None
    assert refusal.detail
    assert not any(secret.strip() and secret.strip() in refusal.detail for secret in secrets)
    return refusal.code


@pytest.mark.parametrize(("adapter", "case"), signature_params())
def test_signature_case(adapter: Adapter[Any], case: Case) -> None:
    assert refusal_code(adapter, case["secrets"], request_of(case), settings_of(adapter, case)) == case["refusal"]


def authentic(provider: str) -> tuple[Case, list[Case]]:
    content = signature_file(provider)
    cases = [case for case in content["cases"] if case["refusal"] is None]
    assert cases, "without an authentic case there is nothing to derive bad ones from"
    return content, cases


@each_adapter
def test_an_accepted_callback_is_answered_as_the_provider_wants(adapter: Adapter[Any]) -> None:
    found = [path for path in case_files(adapter.provider) if path.name == "answer.json"]
    assert found, f"providers/{adapter.provider} has no tests/cases/answer.json"
    expected: Case = json.loads(found[0].read_text("utf-8"))
    assert expected.pop("source"), "who says that the provider wants to be answered so"
    assert {"status": 200, "content_type": "", "body": ""} | expected == {
        "status": adapter.accepted.status,
        "content_type": adapter.accepted.content_type,
        "body": adapter.accepted.body.decode("ascii"),
    }
    # Everything else makes providers repeat, or people look for an error; a body without a type means nothing.
    assert 200 <= adapter.accepted.status < 300
    assert adapter.accepted.content_type or not adapter.accepted.body
    assert adapter.accepted.status != 204 or not adapter.accepted.body


each_unsigned = pytest.mark.parametrize("adapter", UNSIGNED.values(), ids=UNSIGNED.keys())


@each_unsigned
def test_a_provider_that_signs_nothing_says_so_and_takes_no_text_for_a_secret(adapter: Adapter[Any]) -> None:
    """So that nobody believes in a secret that proves nothing. Whoever asks its verifier all the same is refused."""
    assert adapter.proof is Proof.CREDENTIAL
    assert not adapter.signature_headers
    assert not [path for path in case_files(adapter.provider) if path.name == "signatures.json"]
    settings = adapter.settings_model()
    for secrets in (["s3cr3t-value"], ["", "s3cr3t-value"]):
        with pytest.raises(InvalidSecretError) as caught:
            adapter.verifier(secrets, settings)
        assert "s3cr3t-value" not in str(caught.value)
    for none in ([], ["", " "]):
        refusal = adapter.verifier(none, settings).verify(RawCallback("POST", "", [], b""))
        assert refusal is not None
        assert refusal.code == "secret_missing"


def shown(username: str, password: str, scheme: bytes = b"Basic") -> list[tuple[bytes, bytes]]:
    return [(b"authorization", scheme + b" " + b64encode(f"{username}:{password}".encode()))]


@each_unsigned
def test_a_name_and_a_password_must_be_shown_where_a_channel_has_them(adapter: Adapter[Any]) -> None:
    if adapter.secret_model is not BasicSecret:
        # Whoever takes no such secret takes none at all.
        with pytest.raises(InvalidSecretError):
            adapter.verifier(['{"username": "ann", "password": "pass-word"}'], adapter.settings_model())
        return
    ann, ben = ('{"username": "ann", "password": "pass-word"}', '{"username": "ben", "password": "w\u00f6rd"}')
    url = "https://callbacks.example.com/api/postevents?channelLabel=Any"

    def judged(secrets: list[str], headers: list[tuple[bytes, bytes]]) -> str | None:
        return refusal_code(adapter, secrets, RawCallback("POST", url, headers, b"{}"))

    for secrets in ([ann], [ben, ann], ["", ann]):
        assert judged(secrets, shown("ann", "pass-word")) is None
        assert judged(secrets, shown("ann", "pass-word", b"bASIC")) is None
        assert judged(secrets, shown("ann", "pass-wor")) == "credentials_invalid"
        assert judged(secrets, shown("an", "npass-word")) == "credentials_invalid"
        assert judged(secrets, [(b"authorization", b"Basic \xff")]) == "credentials_invalid"
        assert judged(secrets, shown("ann", "pass-word", b"Bearer")) == "credentials_missing"
        assert judged(secrets, []) == "credentials_missing"
    assert judged([ben], shown("ben", "w\u00f6rd")) is None
    assert judged([ben], shown("ann", "pass-word")) == "credentials_invalid"
    for unusable in (
        '{"username": "ann"}',
        '{"username": "a:b", "password": "pass-word"}',
        '{"username": "ann", "pass',
    ):
        with pytest.raises(InvalidSecretError) as caught:
            adapter.verifier([unusable], adapter.settings_model())
        assert "ann" not in str(caught.value)
        assert "pass-word" not in str(caught.value)


@each_signing
def test_the_signature_is_among_the_headers_that_are_not_kept(adapter: Adapter[Any]) -> None:
    content = signature_file(adapter.provider)
    assert adapter.signature_headers == frozenset({content["signature_header"].encode()})
    for case in content["cases"]:
        kept = adapter.signature_headers_of(settings_of(adapter, case))
        assert kept == frozenset({header_of(content, case).encode()})


@each_adapter
def test_default_settings_ask_for_what_the_adapter_declares(adapter: Adapter[Any]) -> None:
    """Where no channel's settings can be read, that is what holds."""
    assert adapter.proof_of(adapter.settings_model()) is adapter.proof
    assert adapter.signature_headers_of(adapter.settings_model()) == adapter.signature_headers


@each_signing
def test_a_missing_empty_truncated_or_foreign_signature_is_refused(adapter: Adapter[Any]) -> None:
    content, cases = authentic(adapter.provider)
    for case in cases:
        callback = request_of(case)
        header, settings = header_of(content, case), settings_of(adapter, case)
        good = callback.header(header.encode())
        assert good is not None
        unsigned = with_signature(callback, header, None)
        assert refusal_code(adapter, case["secrets"], unsigned, settings) == "signature_missing"
        for bad in (
            b"",
            good[:-1],
            good[:10],
            good + b"A",
            good.swapcase(),
            b"!" + good,
            b"\xff\x00",
            b" " * 9,
            good * 2,
        ):
            assert refusal_code(adapter, case["secrets"], with_signature(callback, header, bad), settings), bad


@each_signing
def test_a_changed_body_is_refused(adapter: Adapter[Any]) -> None:
    _, cases = authentic(adapter.provider)
    for case in cases:
        callback = request_of(case)
        changed = replace(callback, body=callback.body + b"&x=y")
        assert refusal_code(adapter, case["secrets"], changed, settings_of(adapter, case))


@each_signing
def test_any_of_several_secrets_verifies_while_they_rotate(adapter: Adapter[Any]) -> None:
    content, cases = authentic(adapter.provider)
    for case in cases:
        another = another_secret(content, case)
        callback, settings = request_of(case), settings_of(adapter, case)
        assert refusal_code(adapter, [another, *case["secrets"]], callback, settings) is None
        assert refusal_code(adapter, [*case["secrets"], another], callback, settings) is None
        assert refusal_code(adapter, ["", f"  {case['secrets'][0]}\n"], callback, settings) is None
        assert refusal_code(adapter, [another], callback, settings) == "signature_invalid"


@each_signing
def test_without_a_secret_everything_is_refused(adapter: Adapter[Any]) -> None:
    _, cases = authentic(adapter.provider)
    for case in cases:
        for none in ([], [""], [" ", "\t\n"]):
            assert refusal_code(adapter, none, request_of(case), settings_of(adapter, case)) == "secret_missing"


@each_signing
def test_a_secret_that_cannot_be_one_is_named_and_not_told(adapter: Adapter[Any]) -> None:
    with pytest.raises(InvalidSecretError) as caught:
        adapter.verifier(["no\u00a0secret of this provider"], adapter.settings_model())
    assert "no\u00a0secret" not in str(caught.value)


@each_signing
@given(data=st.data())
def test_verify_never_raises(adapter: Adapter[Any], data: st.DataObject) -> None:
    content, cases = authentic(adapter.provider)
    case = data.draw(st.sampled_from(cases))
    names = st.sampled_from([name.encode() for name in case["headers"]]) | st.binary(max_size=8)
    callback = RawCallback(
        method=data.draw(st.sampled_from(["POST", "GET", ""])),
        url=data.draw(st.sampled_from([case["url"], "", "https://[::1", "//@:/?bodySHA256="]) | st.text()),
        headers=data.draw(st.lists(st.tuples(names, st.binary(max_size=80)), max_size=4)),
        body=data.draw(st.binary() | st.just(case["body"].encode())),
    )
    secrets = [*case["secrets"], another_secret(content, case)]
    assert adapter.verifier(secrets, settings_of(adapter, case)).verify(callback) is not None
