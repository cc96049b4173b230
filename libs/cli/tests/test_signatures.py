"""Signatures of calls: those that others make are verified, and those made here are what others verify."""

from __future__ import annotations

import base64
import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from backhaul_cli.__main__ import main
from backhaul_cli.failing import FailedError
from backhaul_cli.signatures import HEADERS, headers_of, keys_of, signed_headers, verdict
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook

NOW = 1_790_000_000
AT = datetime.fromtimestamp(NOW, UTC).isoformat()
BODY = b'{"type": "message.delivered", "text": "\xc3\xa9"}\r\n'
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PAIR = "whsk_" + base64.b64encode(PRIVATE.private_bytes_raw() + PRIVATE.public_key().public_bytes_raw()).decode()
PUBLIC = "whpk_" + base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode()
KINDS = ((SECRET, SECRET), (PAIR, PUBLIC), (PAIR, PAIR))


def test_what_the_official_library_signs_is_verified_and_the_reverse() -> None:
    at = datetime.fromtimestamp(NOW, UTC)
    theirs = Webhook(SECRET).sign("m1", at, BODY.decode())
    headers = dict(zip(HEADERS, ("m1", str(NOW), theirs), strict=True))
    assert verdict(headers, BODY, keys_of(SECRET), NOW, 300).valid
    now = int(datetime.now(UTC).timestamp())
    Webhook(SECRET).verify(BODY, signed_headers("m1", now, BODY, keys_of(SECRET)), json_parse=False)


@pytest.mark.parametrize(("signing", "verifying"), KINDS)
def test_whatever_is_changed_of_a_call_is_found(signing: str, verifying: str) -> None:
    headers = signed_headers("m1", NOW, BODY, keys_of(signing))
    keys = keys_of(verifying)
    assert verdict(headers, BODY, keys, NOW, 300).valid
    for place in range(len(BODY)):
        changed = BODY[:place] + bytes([BODY[place] ^ 1]) + BODY[place + 1 :]
        assert verdict(headers, changed, keys, NOW, 300).problem == "signature_wrong"
    for name, text in (("webhook-id", "m2"), ("webhook-timestamp", str(NOW + 1))):
        assert verdict({**headers, name: text}, BODY, keys, NOW, 300).problem == "signature_wrong"


@pytest.mark.parametrize(
    ("changed", "problem", "said"),
    [
        ({"webhook-id": ""}, "header_missing", "webhook-id"),
        ({"webhook-timestamp": "soon"}, "timestamp_malformed", "'soon'"),
        ({"webhook-timestamp": "٣"}, "timestamp_malformed", "unix time"),
        ({"webhook-timestamp": "-1"}, "timestamp_malformed", "unix time"),
        ({"webhook-id": "a.b"}, "id_malformed", "full stop"),
        ({"webhook-signature": "v1"}, "signature_malformed", "v1,<base64>"),
        ({"webhook-signature": "v1,%%%"}, "signature_malformed", "v1,<base64>"),
        ({"webhook-signature": "v1a,AAAA"}, "version_missing", "v1a"),
        ({"webhook-signature": "v2,%%%"}, "version_missing", "v2"),
        ({"webhook-signature": "garbage"}, "signature_malformed", "v1,<base64>"),
        ({"webhook-signature": "v1,AAAA"}, "signature_wrong", "another key"),
        ({"webhook-signature": "v1, " + "v1,AAAA " * 20}, "signature_malformed", "v1,<base64>"),
    ],
)
def test_the_part_that_is_wrong_is_named(changed: dict[str, str], problem: str, said: str) -> None:
    headers = signed_headers("m1", NOW, BODY, keys_of(SECRET)) | changed
    found = verdict(headers, BODY, keys_of(SECRET), NOW, 300)
    assert (found.valid, found.problem) == (False, problem)
    assert said in found.detail


@pytest.mark.parametrize("newer", ["v2,%%%", "v1b,AAAA", "v2,"])
def test_a_version_that_is_not_known_is_passed_over_beside_one_that_is(newer: str) -> None:
    headers = signed_headers("m1", NOW, BODY, keys_of(SECRET))
    for both in (f"{newer} {headers['webhook-signature']}", f"{headers['webhook-signature']} {newer}"):
        assert verdict({**headers, "webhook-signature": both}, BODY, keys_of(SECRET), NOW, 300).valid


def test_a_time_that_is_signed_is_judged_and_one_that_is_not_says_nothing() -> None:
    headers = signed_headers("m1", NOW, BODY, keys_of(SECRET))
    for late, problem in ((300, None), (301, "too_old"), (-300, None), (-301, "too_new")):
        assert verdict(headers, BODY, keys_of(SECRET), NOW + late, 300).problem == problem
    assert verdict(headers, BODY, keys_of(OTHER), NOW + 9_999, 300).problem == "signature_wrong"


def test_while_a_secret_is_changed_either_is_good() -> None:
    headers = signed_headers("m1", NOW, BODY, keys_of(f"{OTHER}\n{SECRET}\n{PAIR}"))
    assert headers["webhook-signature"].count(" ") == 2
    assert all(verdict(headers, BODY, keys_of(one), NOW, 0).valid for one in (SECRET, OTHER, PUBLIC))
    answer = {"id": "s1", "secrets": [{"secret": SECRET, "public_key": None}, {"secret": "", "public_key": PUBLIC}]}
    assert [key.prefix for key in keys_of(json.dumps(answer))] == ["whsec_", "whpk_"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"secrets": [1]}',
        '{"secrets": "hidden',
        100_000 * '{"secrets":',
        "bhk_hidden",
        "whsec_",
        "whsec_hidden",
        "whsec_hidd",
        "whsec_hiddené",
        f"whsk_{22 * 'A'}==",
        SECRET.rstrip("="),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(FailedError) as failed:
        keys_of(text)
    said = failed.value.what + failed.value.fix
    assert "hidd" not in said
    assert SECRET[6:14] not in said
    assert repr(keys_of(SECRET)) == "[Key(whsec_…)]"


def test_headers_as_tools_write_them() -> None:
    text = "POST http://127.0.0.1/told HTTP/1.1\r\nWebhook-Id: m1\r\nWEBHOOK-TIMESTAMP:12\r\n\r\n"
    assert headers_of(text) == {"webhook-id": "m1", "webhook-timestamp": "12"}
    assert headers_of('{"Webhook-Id": "m1"}') == {"webhook-id": "m1"}
    for text in ('{"a"', 100_000 * '{"a":'):
        with pytest.raises(FailedError, match="no JSON"):
            headers_of(text)


@pytest.mark.parametrize(("signing", "verifying"), KINDS)
def test_what_is_signed_here_is_verified_here_by_the_commands(
    signing: str, verifying: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body, keys, headers = (tmp_path / name for name in ("body", "keys", "headers"))
    body.write_bytes(BODY)
    keys.write_text(signing)
    assert main(["signature", "sign", str(body), "--keys", str(keys), "--at", AT]) == 0
    headers.write_text(capsys.readouterr().out)
    keys.write_text(verifying)
    verify = ["signature", "verify", str(body), "--keys", str(keys), "--headers", str(headers), "--json"]
    assert main([*verify, "--at", AT]) == 0
    capsys.readouterr()
    assert main(verify) == 7
    found = json.loads(capsys.readouterr().out)
    assert (found["valid"], found["problem"]) == (False, "too_old")
    assert main([*verify, "--at", AT, "--id", "m2"]) == 7
    assert json.loads(capsys.readouterr().out)["problem"] == "signature_wrong"


def test_a_body_and_a_key_do_not_come_by_one_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SECRET.encode())))
    assert main(["signature", "sign"]) == 2
    assert "--keys" in capsys.readouterr().err
    body = tmp_path / "body"
    body.write_bytes(BODY)
    assert main(["signature", "sign", str(body), "--id", "m1", "--at", AT, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == signed_headers("m1", NOW, BODY, keys_of(SECRET))
    (tmp_path / "public").write_text(PUBLIC)
    assert main(["signature", "sign", str(body), "--keys", str(tmp_path / "public")]) == 2
    assert "whsk_" in capsys.readouterr().err
