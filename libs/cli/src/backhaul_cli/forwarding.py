"""Events as calls to an address nearby: the body, the signature and the rules of what a subscription is sent."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from backhaul_cli.failing import FailedError

if TYPE_CHECKING:
    from backhaul_client.models import Event

_TIMEOUT_S = 30.0
_CONNECT_S = 2.0
_PREFIX = "whsec_"
_MIN_SECRET_BYTES, _MAX_SECRET_BYTES = 24, 64
_MAX_ANSWER_BYTES = 4_096
_OURS = ("data_format", "data", "traceparent")
"""What the API tells of an event and a subscription's body does not."""
_NEAR = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
"""This machine and private networks. What else Python calls private leads out in places, and of a link are the
addresses at which clouds keep credentials."""
_NO_TIME = "1970-01-01T00:00:00.000000Z"


class Answer(NamedTuple):
    """What came of a call. ``status`` is 0 where nothing was answered, for the reason ``error``."""

    status: int
    ms: float
    text: str = ""
    error: str = ""

    @property
    def taken(self) -> bool:
        """Whether it was a success, as the notifier sees it."""
        return 200 <= self.status < 300


class Told(NamedTuple):
    """One event as it is called with: the body, and the id that stays the same however often it is called."""

    event: Event
    webhook_id: str
    body: bytes


def told(event: Event) -> Told:
    """``event`` as a subscription with the payload ``full`` tells it, under its kind's own type. Its ``webhook-id`` is
    the same for each call of one revision, and another than that of a subscription's delivery."""
    named = hashlib.sha256(f"{event.id}.{event.revision}".encode()).hexdigest()[:32]
    return Told(event, f"msg_{named}", msgspec.json.encode(_body(event)))


def _body(event: Event) -> dict[str, Any]:
    data = msgspec.to_builtins(event, builtin_types=(datetime,))
    moment = event.occurred_at or event.received_at
    return {
        "id": event.id,
        "type": f"message.{event.kind}",
        "timestamp": _written(moment) if moment else _NO_TIME,
        "revision": event.revision,
        "data": {name: _written(value) for name, value in data.items() if name not in _OURS},
    }


def _written(value: Any) -> Any:
    """Times as the notifier writes them; whatever else is as it is. An event's times are its own fields alone."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if isinstance(value, datetime) else value


def key_of(secret: str) -> bytes:
    """The bytes of a ``whsec_…``. FailedError where it is none."""
    try:
        found = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        found = b""
    if not secret.startswith(_PREFIX) or not _MIN_SECRET_BYTES <= len(found) <= _MAX_SECRET_BYTES:
        raise FailedError(
            "That is no secret that calls are signed with.",
            f"It is {_PREFIX} and the base64 of {_MIN_SECRET_BYTES} to {_MAX_SECRET_BYTES} bytes.",
        )
    return found


def new_secret() -> str:
    """One that nobody has had before."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_address(url: str, *, anywhere: bool) -> list[str]:
    """The addresses to which ``url`` leads, in the order in which they are to be dialled; none where it may be
    ``anywhere``. FailedError where it cannot be called, or is not of this machine or a private network: what is told
    of people goes nowhere else by a slip."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        host, port, parts = "", 0, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise FailedError(f"{url!r} cannot be called.", "It is like http://127.0.0.1:9000/backhaul.")
    if parts.username is not None:
        raise FailedError("The address holds a name or a password.", "Leave them out: everybody here sees arguments.")
    if anywhere:
        return []
    try:
        found = {str(row[4][0]): None for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError as exc:
        raise FailedError(f"{host} has no address: {exc.strerror}.", "Check the name.") from None
    if outside := sorted(one for one in found if not _is_near(one)):
        raise FailedError(
            f"{host} is {', '.join(outside)}, which is not of this machine or a private network.",
            "Say --anywhere if people's data may go there; a subscription is what is made for it.",
        )
    return list(found)


def _is_near(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    return any(mapped in network for network in map(ipaddress.ip_network, _NEAR))


def listens(url: str, addresses: Sequence[str]) -> bool:
    """Whether anything listens there, at one of the ``addresses`` to which it leads; where there are none, at its
    name."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for address in addresses or [parts.hostname or ""]:
        try:
            with socket.create_connection((address, port), timeout=_CONNECT_S):
                return True
        except OSError:
            continue
    return False


class Caller:
    """Calls one address. Nothing but this address is called: no proxy, and no redirect of it. Unless it may be
    ``anywhere``, it is looked before each call whether its name still leads to this machine or a private network, and
    what was looked at is dialled: the name is not looked up once more, when it might lead elsewhere."""

    def __init__(self, url: str, key: bytes, *, anywhere: bool = False) -> None:
        self._url = url
        self._anywhere = anywhere
        self._key = key
        self._http = httpx.Client(timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()

    def call(self, one: Told) -> Answer:
        """Tell ``one``, once. What went wrong is an answer, too."""
        at = str(int(time.time()))
        signed = b"%b.%b.%b" % (one.webhook_id.encode(), at.encode(), one.body)
        signature = base64.b64encode(hmac.digest(self._key, signed, "sha256")).decode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "backhaul-listen",
            "webhook-id": one.webhook_id,
            "webhook-timestamp": at,
            "webhook-signature": f"v1,{signature}",
        }
        began = time.perf_counter()
        try:
            with self._dialled(content=one.body, headers=headers) as answer:
                text = b""
                for piece in answer.iter_bytes():
                    text += piece
                    if len(text) >= _MAX_ANSWER_BYTES or time.perf_counter() - began > _TIMEOUT_S:
                        break
                status = answer.status_code
        except FailedError as exc:
            return Answer(0, _since_ms(began), error=exc.what)
        except httpx.HTTPError as exc:
            return Answer(0, _since_ms(began), error=f"{type(exc).__name__}: {exc}".rstrip(": "))
        return Answer(status, _since_ms(began), text[:_MAX_ANSWER_BYTES].decode("utf-8", "replace"))

    @contextmanager
    def _dialled(self, *, content: bytes, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The answer of the first address that can be reached, to a request for the name."""
        url = httpx.URL(self._url)
        dialled = [url.copy_with(host=one) for one in check_address(self._url, anywhere=self._anywhere)] or [url]
        named = {**headers, "Host": url.netloc.decode()}
        sni = {"sni_hostname": url.raw_host.decode()}
        for number, at in enumerate(dialled, 1):
            request = self._http.build_request("POST", at, content=content, headers=named, extensions=sni)
            try:
                answer = self._http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(dialled):
                    raise
                continue
            with closing(answer):
                yield answer
            return


def _since_ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000
