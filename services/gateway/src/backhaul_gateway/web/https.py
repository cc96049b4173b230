"""What depends on whether a request came encrypted: where it is sent instead, and what its answer and its signature are
held to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backhaul_common.errors import BackhaulError, Code
from backhaul_common.outages import Repeated

from backhaul_gateway.web.clients import ClientAddress, said_https
from backhaul_gateway.web.problems import nothing_at

PERMANENT_REDIRECT = 308

_ASKED = frozenset({"GET", "HEAD"})
EVERYWHERE = frozenset({"healthz", "readyz"})
"""First segments of the paths that each port answers, whomever it is for."""
_STAYS = EVERYWHERE | {"metrics"}
"""They tell of the very process that was asked, and the public address may lead to another one."""
_PROVIDERS = "/in/"

Fields = Sequence[tuple[bytes, bytes]]


def first_segment(path: str) -> str:
    """Of a path, in lower case: by it is decided who may go there, and by which port."""
    return path.split("/", 2)[1].lower() if "/" in path else ""


@dataclass(frozen=True, slots=True)
class Origins:
    """How the gateway is addressed, without a slash at the end."""

    public: str
    plain: str = ""
    """By whoever calls unencrypted; empty: as ``public``."""


class Https:
    """See the module. What is encrypted came over TLS to the gateway, or to a proxy that is trusted and says so."""

    def __init__(
        self, clients: ClientAddress, origins: Origins, *, redirects: bool, hsts_max_age_s: int, admin_port: int
    ) -> None:
        """``admin_port`` is left as it is: the public address does not lead to it."""
        self._clients = clients
        self._public, self._plain = origins.public, origins.plain
        self._admin_port = admin_port
        self.redirects = redirects
        self._doubt = Repeated("proxy_not_trusted", component="https")
        self._strict: Fields = ()
        if hsts_max_age_s:
            self._strict = ((b"strict-transport-security", b"max-age=%d" % hsts_max_age_s),)

    def is_secure(self, scope: Mapping[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the request came encrypted."""
        return scope["scheme"] == "https" or self._clients.says_https(scope, headers)

    def strict(self, scope: Mapping[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> Fields:
        """The header that tells browsers to come by https alone (RFC 6797); none where they did not."""
        return self._strict if self._strict and self.is_secure(scope, headers) else ()

    def base_url(self, scope: Mapping[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> str:
        """What the request's path was put behind by whoever signed it. No header says where: those can be forged.

        By which scheme, even a proxy that is not trusted may say while there is redirection: for either address a
        signature takes the same secret, and behind such a proxy no callback would be signed over the plain one.
        """
        if not self._plain or self.is_secure(scope, headers) or (self.redirects and self._doubts(scope, headers)):
            return self._public
        return self._plain

    def elsewhere(self, scope: Mapping[str, Any]) -> str:
        """Where to send the request instead; empty where it may stay. NOT_FOUND for what is no path: ``*.example``
        would make another host of the public base URL.

        FORBIDDEN for a request that does more than ask. Clients repeat such ones without their body, or not at all, and
        what it had to hide has been in the open already. Providers' requests stay, for that is better than losing them.
        """
        path: str = scope["path"]
        if not self.redirects or first_segment(path) in _STAYS or path.lower().startswith(_PROVIDERS):
            return ""
        if self._admin_port and (scope.get("server") or ("", 0))[1] == self._admin_port:
            return ""
        if self.is_secure(scope, scope["headers"]):
            return ""
        self._doubts(scope, scope["headers"])
        if scope["method"] not in _ASKED:
            raise BackhaulError(
                Code.FORBIDDEN,
                "This came by plain HTTP, and is taken by HTTPS alone.",
                field="scheme",
                fix=f"Send it to {self._public}; take any credential that it had for known, and replace it.",
            )
        query: bytes = scope["query_string"]
        sent: bytes = scope["raw_path"]
        if not sent.startswith(b"/"):
            raise nothing_at(path)
        return self._public + (sent + (b"?" + query if query else b"")).decode("latin-1")

    def _doubts(self, scope: Mapping[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether an unencrypted request is said to have come by https, by somebody who is not trusted to say so. The
        log says it then: if that is the installation's proxy, all that comes through it is sent away again."""
        if not said_https(headers):
            return False
        self._doubt.warning(
            "It says X-Forwarded-Proto: https, and is in no network of BACKHAUL_GATEWAY_TRUSTED_PROXIES. If it is your "
            "proxy, add it there: what comes through it is redirected to itself.",
            client=(scope.get("client") or ("",))[0],
        )
        return True
