"""Other spellings of an address that Twilio may have signed, most likely ones first.

Twilio is not of one mind about the address: its products keep or drop the port, it may sort the query's parameters
after it has signed them as they were configured, ``%20`` may arrive as ``+``, and user and password arrive as an
Authorization header. Only the verifier asks here, and only after the address as it arrived did not fit.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator, Sequence
from itertools import permutations, product
from urllib.parse import quote_from_bytes

MAX_SPELLINGS = 48
"""Each costs one HMAC, for whoever posts a wrong signature."""

# Beyond these, an address is nobody's configuration and not worth the work.
_MAX_QUERY = 2048
_MAX_PARAMETERS = 32
_MAX_CREDENTIAL = 512
# With so few parameters every order is tried, with more only the likely ones: there are six of three, 24 of four.
_MAX_PERMUTED = 3

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(.*)", re.DOTALL)
# What RFC 3986 lets stand in a user or a password. Anything else (a slash, an @) could end the authority, so that the
# text in front of it would be read as another host: https://evil.example/x:@callbacks.example.com/.
_SUB_DELIMS = "!$&'()*+,;="
_USERINFO = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
_BODY_HASH = "bodySHA256="
_LABEL = "channellabel"


def spellings(url: str, authorization: bytes = b"") -> Iterator[str]:
    """At most ``MAX_SPELLINGS`` other spellings of ``url`` (which has no fragment), ``url`` itself not among them.

    ``authorization`` is the request's header of that name, which brings the user and password of the address. The host
    keeps its case; of the scheme, lower case is tried too.
    """
    match = _URL.fullmatch(url)
    if match is None:
        return
    scheme, authority, rest = match[1].lower(), match[2], match[3]
    # Only the last @ ends the user's name and password, which may hold colons and at-signs of their own.
    userinfo, at, host_port = authority.rpartition("@")
    host, port = _split_port(host_port)
    users = list(dict.fromkeys(("", userinfo + at, *_users(authorization))))
    hosts = list(dict.fromkeys((host, f"{host}:{port or _DEFAULT_PORTS.get(scheme, '')}", host_port)))
    tails = list(dict.fromkeys(_tails(rest)))
    # An address that differs in one way is likelier than one that differs in two.
    choices = product(enumerate(tails), enumerate(users), enumerate(hosts))
    ranked = sorted(choices, key=lambda choice: choice[0][0] + choice[1][0] + choice[2][0])
    seen = {url}
    for (_, tail), (_, user), (_, address) in ranked:
        spelling = f"{scheme}://{user}{address}{tail}"
        if spelling not in seen:
            seen.add(spelling)
            yield spelling
            if len(seen) > MAX_SPELLINGS:
                return


def _split_port(host_port: str) -> tuple[str, str]:
    if host_port.startswith("["):
        # The colons of an IPv6 address are inside of its brackets.
        host, bracket, port = host_port.partition("]")
        return host + bracket, port.removeprefix(":")
    host, _, port = host_port.partition(":")
    return host, port


def _users(authorization: bytes) -> Iterator[str]:
    """``user:password@`` of a Basic credential, as it may have been written in front of the host."""
    if authorization[:6].lower() != b"basic " or len(authorization) > _MAX_CREDENTIAL:
        return
    try:
        user, _, password = b64decode(authorization[6:].strip(), validate=True).partition(b":")
    except (Base64Error, ValueError):
        return
    if not user and not password:
        return
    if _USERINFO.fullmatch(user) and _USERINFO.fullmatch(password):
        yield from _written(user.decode("ascii"), password.decode("ascii"))
    for safe in (_SUB_DELIMS, ""):
        # The header brings them decoded; in the address whatever is not safe there was escaped.
        yield from _written(quote_from_bytes(user, safe), quote_from_bytes(password, safe))


def _written(user: str, password: str) -> Iterator[str]:
    yield f"{user}:{password}@"
    if not password:
        yield f"{user}@"


def _tails(rest: str) -> Iterator[str]:
    """Path and query, the query in other orders and escapes."""
    yield rest
    path, mark, query = rest.partition("?")
    if not query or len(query) > _MAX_QUERY:
        return
    parameters = query.split("&")
    # Twilio appends the hash of a JSON body when it signs, so it is no part of what was configured.
    suffix = [parameters.pop()] if parameters[-1].startswith(_BODY_HASH) else []
    for order in _orders(parameters):
        spelled = path + mark + "&".join([*order, *suffix])
        yield spelled
        if "%20" in spelled:
            yield spelled.replace("%20", "+")
        if "+" in query:
            yield path + mark + "&".join([*order, *suffix]).replace("+", "%20")
    # Proxies and client libraries disagree on whether the quotation mark is escaped.
    if "'" in query:
        yield path + mark + query.replace("'", "%27")
    if "%27" in query:
        yield path + mark + query.replace("%27", "'")


def _orders(parameters: list[str]) -> Iterator[Sequence[str]]:
    yield parameters
    if not 1 < len(parameters) <= _MAX_PARAMETERS:
        return
    # An address that was configured with channelLabel in front, as people write it, and arrives sorted.
    yield sorted(parameters, key=lambda parameter: parameter.partition("=")[0].lower() != _LABEL)
    yield sorted(parameters, key=lambda parameter: parameter.partition("=")[0])
    if len(parameters) <= _MAX_PERMUTED:
        yield from permutations(parameters)
