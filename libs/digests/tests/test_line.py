"""What a digest is as text: every byte of it counts, and whatever is none is said to be none."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from backhaul_digests.line import DeletionEntry, DigestLine, FileEntry, parse, to_bytes, to_object
from backhaul_digests.signing import SigningKey, is_signed, key_id

KEY = SigningKey.from_text(32 * "A" + 11 * "A" + "=")
TIME = "2026-01-15T09:00:00.000000Z"


def line(**changed: Any) -> DigestLine:
    made = DigestLine(
        tenant_id="acme",
        registration="acme.0123456789abcdef",
        chain="events",
        digest_number=1,
        digest_start_time=TIME,
        digest_end_time=TIME,
        digest_bucket="backhaul",
        digest_object="digests/x",
        digest_public_key_id=KEY.id,
        newest_event_time=None,
        oldest_event_time=None,
        previous_digest_bucket=None,
        previous_digest_object=None,
        previous_digest_hash_value=None,
        previous_digest_hash_algorithm=None,
        previous_digest_signature=None,
        files=[],
        deletions=[],
    )
    return msgspec.structs.replace(made, **changed)


def stored(said: bytes) -> bytes:
    return to_object(said, KEY.id, KEY.sign(line()).signature)


def test_what_is_written_is_read_and_its_signature_fits() -> None:
    digest = KEY.sign(line())
    read = parse(to_object(digest.line, digest.key_id, digest.signature))
    assert isinstance(read, tuple)
    signed, said, signed_by, signature = read
    assert (signed, said, signed_by) == (digest.line, line(), KEY.id)
    assert is_signed(KEY.public, said.signed_text(signed), signature)
    assert key_id(KEY.public) == KEY.id
    assert not is_signed(KEY.public, said.signed_text(signed + b" "), signature)


def test_names_are_in_camel_case_and_sorted() -> None:
    said = json.loads(to_bytes(line()))
    assert list(said) == sorted(said)
    assert {"tenantId", "digestPublicKeyId", "previousDigestHashAlgorithm", "digestVersion", "files"} <= set(said)
    assert "inflatedHashValue" in FileEntry.__struct_encode_fields__


def test_the_bytes_that_are_signed_are_for_ever_the_same() -> None:
    """Whoever signed it in an earlier version signed these."""
    file = FileEntry(
        number=1,
        channel="twilio",
        destination="",
        bucket="b",
        object="o/é",
        format="jsonl",
        gzip=True,
        events=1,
        bytes=2,
        hash_value="h",
        inflated_bytes=3,
        inflated_hash_value="i",
        first_position=4,
        last_position=5,
        first_event_time=TIME,
        last_event_time=TIME,
    )
    deletion = DeletionEntry(number=1, object="x", deleted_time=TIME, reason="retention")
    told = line(
        digest_public_key_id="k",
        newest_event_time=TIME,
        previous_digest_hash_algorithm="SHA-256",
        files=[file],
        deletions=[deletion],
    )
    expected = "192b0a5ebfae61e9788af94df62a7a876841b1451a8cae36c984f138345813ad"
    assert sha256(to_bytes(told)).hexdigest() == expected


def test_what_a_later_version_says_besides_is_read_over() -> None:
    said = json.dumps({**json.loads(to_bytes(line())), "newer": 1}).encode()
    assert isinstance(parse(stored(said)), tuple)


@pytest.mark.parametrize(
    "changed",
    [
        {"digestNumber": 0},
        {"digestNumber": "1"},
        {"digestNumber": True},
        {"digestVersion": 2},
        {"files": None},
        {"files": [{}]},
        {"deletions": [{"number": 0, "object": "x", "deletedTime": TIME, "reason": "r"}]},
        {"deletions": [{"number": (1 << 31) + 1, "object": "x", "deletedTime": TIME, "reason": "r"}]},
        {"chain": None},
        {"digestEndTime": "2026-01-15"},
        {"digestSignatureAlgorithm": "none"},
        {"previousDigestHashAlgorithm": "MD5"},
    ],
)
def test_a_line_that_is_not_as_it_should_be(changed: dict[str, Any]) -> None:
    read = parse(stored(json.dumps({**json.loads(to_bytes(line())), **changed}).encode()))
    assert isinstance(read, str)
    assert read.startswith("Its signed line is not as it should be: ")


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b"\xff", b"null", b'{"a":' * 100_000, b'"\\ud800"'])
def test_a_line_that_is_no_document(said: bytes) -> None:
    assert isinstance(parse(said + b"\nx\n"), str)


def test_below_the_line_nothing_may_be_written_otherwise() -> None:
    good = stored(to_bytes(line()))
    assert isinstance(parse(good), tuple)
    for bad in (good[:-1], good + b"\n", good.replace(b'"keyId":', b'"keyId": '), good.partition(b"\n")[0]):
        assert isinstance(parse(bad), str)
