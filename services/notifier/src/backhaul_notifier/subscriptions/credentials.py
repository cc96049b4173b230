"""What credentials must be, to be shown to an endpoint. Nothing that is said here repeats one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from backhaul_common.errors import Violation
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates

from backhaul_notifier.calling.credentials import is_ours
from backhaul_notifier.door.outcome import RequestError, require_headers

MAX_TEXT: Final = 2048
"""Characters of a name, a password, a scope."""

MAX_TOKEN: Final = 8000
"""Characters of a bearer token: with its name, what servers take as a header."""

MAX_HEADER_NAME: Final = 256

MAX_PEM: Final = 16 << 10
"""Characters of a certificate with its chain, and of a key."""

_UNWANTED = re.compile(r"[\x00-\x1f\x7f]")
_TOKEN = re.compile(r"[\x21-\x7e]*")
_SCOPE = re.compile(r"(?:[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*)?")


def check_credentials(credentials: pb.Credentials, *, https: bool) -> Iterator[Violation]:
    """What is wrong with credentials whose secrets are plain, by their own fields. ``https``: the endpoint is called by
    TLS."""
    match credentials.WhichOneof("kind"):
        case "basic":
            yield from _basic(credentials.basic)
        case "bearer_token":
            yield from _secret(credentials.bearer_token, "bearer_token", _TOKEN, MAX_TOKEN)
        case "header":
            yield from _header(credentials.header)
        case "oauth":
            yield from _oauth(credentials.oauth)
        case _:
            if not credentials.HasField("mutual_tls"):
                yield Violation(
                    "", "They are empty.", "Pass basic, bearer_token, header, oauth or mutual_tls, or nothing."
                )
    if credentials.HasField("mutual_tls"):
        if not https:
            yield Violation("mutual_tls", "A certificate is shown by TLS alone.", "Pass an address with https://.")
        yield from _mutual_tls(credentials.mutual_tls)


def _basic(basic: pb.BasicCredentials) -> Iterator[Violation]:
    if not basic.username:
        yield Violation("basic.username", "It is missing.", "Pass the user's name.")
    if ":" in basic.username:
        yield Violation("basic.username", "It has a colon, which ends it.", "Pass the name without it.")
    yield from _text(basic.username, "basic.username")
    yield from _text(basic.password, "basic.password")


def _header(header: pb.HeaderCredentials) -> Iterator[Violation]:
    if len(header.name) > MAX_HEADER_NAME:
        yield Violation("header.name", f"It has more than {MAX_HEADER_NAME} characters.", "Shorten it.")
        return
    try:
        require_headers({header.name: header.value})
    except RequestError as exc:
        yield Violation("header", exc.sentence, "Pass the header as the endpoint wants it.")
    if is_ours(header.name):
        yield Violation("header.name", "Backhaul itself writes this header.", "Choose another one.")
    if not header.value:
        yield Violation("header.value", "It is missing.", "Pass the value.")
    if len(header.value) > MAX_TOKEN:
        yield Violation("header.value", f"It has more than {MAX_TOKEN} characters.", "Shorten it.")


def _oauth(oauth: pb.OAuthCredentials) -> Iterator[Violation]:
    if not oauth.token_url:
        yield Violation("oauth.token_url", "It is missing.", "Pass the address that gives tokens.")
    elif "#" in oauth.token_url or "${" in oauth.token_url:
        yield Violation("oauth.token_url", "It has a fragment or a variable.", "Pass an address without.")
    if not oauth.client_id:
        yield Violation("oauth.client_id", "It is missing.", "Pass the client's id.")
    yield from _text(oauth.client_id, "oauth.client_id")
    if not oauth.client_secret:
        yield Violation("oauth.client_secret", "It is missing.", "Pass the client's secret.")
    yield from _text(oauth.client_secret, "oauth.client_secret")
    if not _SCOPE.fullmatch(oauth.scope) or len(oauth.scope) > MAX_TEXT:
        yield Violation("oauth.scope", "It is no list of scopes.", "Pass scopes with one blank between them.")
    yield from _text(oauth.audience, "oauth.audience")


def _mutual_tls(tls: pb.MutualTls) -> Iterator[Violation]:
    fix = "Pass PEM that is not encrypted."
    given = (("certificate", tls.certificate), ("private_key", tls.private_key))
    missing = [Violation(f"mutual_tls.{name}", "It is missing.", fix) for name, text in given if not text]
    long = [
        Violation(f"mutual_tls.{name}", f"It has more than {MAX_PEM} characters.", "Leave out what is not needed.")
        for name, text in given
        if len(text) > MAX_PEM
    ]
    if missing or long:
        yield from (*missing, *long)
        return
    certified = _certified(tls.certificate)
    if certified is None:
        yield Violation("mutual_tls.certificate", "It is no certificate that can be read.", fix)
    shown = _shown(tls.private_key)
    if shown is None:
        yield Violation("mutual_tls.private_key", "It is no key that can be read.", fix)
    if certified and shown and certified != shown:
        yield Violation(
            "mutual_tls.private_key", "It is not the certificate's key.", "Pass the two that belong together."
        )


def _certified(pem: str) -> bytes | None:
    """The public key of the first certificate."""
    try:
        found = load_pem_x509_certificates(pem.encode())
        return found[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _shown(pem: str) -> bytes | None:
    """The public half of a key."""
    try:
        # Proving a large RSA key takes seconds; that it is the certificate's is proof enough.
        key = load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def _secret(text: str, field: str, good: re.Pattern[str], most: int) -> Iterator[Violation]:
    if not text:
        yield Violation(field, "It is missing.", "Pass it.")
    elif len(text) > most or not good.fullmatch(text):
        yield Violation(
            field, f"It has more than {most} characters, or some that none has.", "Pass it as it was given."
        )


def _text(text: str, field: str) -> Iterator[Violation]:
    if len(text) > MAX_TEXT or _UNWANTED.search(text):
        yield Violation(
            field, f"It has more than {MAX_TEXT} characters, or control characters.", "Pass it as it was given."
        )
