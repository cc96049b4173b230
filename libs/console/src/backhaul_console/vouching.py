"""Signing in as somebody whom an OpenID provider vouches for: the way there, and back."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from backhaul_console.cookies import Cookies
from backhaul_console.openid import Asked, NoRoleError, NotVouchedError, Provider, ProviderAwayError, is_word
from backhaul_console.rendering import address
from backhaul_console.sessions import Access, Admin, Person, Seal, Session, Sessions, with_admin
from backhaul_console.texts import _

BEGIN = "/sign-in/openid"
BACK = "/sign-in/callback"
"""The provider has this address, behind the console's host, among those that it sends browsers back to."""
LASTS_S = 600
"""How long somebody may take at the provider."""
_MOST_USED = 10_000
"""Sign-ins that are remembered, so that none is answered twice."""


class Vouching:
    """See the module. ``opens`` has a session, or a new one, open what it is given; ``page`` answers with the form of
    the sign-in, and what went wrong."""

    def __init__(
        self,
        provider: Provider,
        seal: Seal,
        sessions: Sessions,
        cookies: Cookies,
        opens: Callable[[Request, Session | None, Access], Awaitable[Session]],
        page: Callable[[Request, int, str], Response],
    ) -> None:
        self._provider = provider
        self._seal = seal
        self._sessions = sessions
        self._cookies = cookies
        self._opens = opens
        self._page = page
        self._used: dict[str, float] = {}
        """The state of each sign-in that was answered, and when it began."""

    async def begin(self, request: Request) -> Response:
        """Send the browser to the provider. A link of another site does not: nobody is to sign in unasked."""
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return RedirectResponse(address("/sign-in"), status_code=303)
        asked = Asked(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            at=time.time(),
            to=own(request.query_params.get("to", "")),
        )
        try:
            where = await self._provider.address(asked)
        except ProviderAwayError as exc:
            return self._away(request, exc)
        answer = RedirectResponse(where, status_code=303)
        self._cookies.give_asked(request, answer, self._seal.encrypt(msgspec.json.encode(asked).decode()), LASTS_S)
        return answer

    async def back(self, request: Request) -> Response:
        """Let in whom the provider has sent back with a code."""
        # It comes from another site, so that the session's cookie is kept back, and its other tenants with it.
        if (again := self._cookies.again(request)) is not None:
            return again
        answer = await self._answered(request)
        self._cookies.take_asked(request, answer)
        return answer

    async def _answered(self, request: Request) -> Response:
        asked = self._asked(request)
        if asked is None:
            text = _("This sign-in was not begun in this browser, or more than ten minutes ago. Begin it again.")
            return self._page(request, 400, text)
        try:
            person = await self._vouched_for(request, asked)
        except ProviderAwayError as exc:
            return self._away(request, exc)
        except NotVouchedError as exc:
            return self._page(request, 403, _("You were not signed in: {reason}.").format(reason=exc))
        except NoRoleError as exc:
            text = _("{name} has no role in Backhaul. Ask the platform team for a group that has one.")
            return self._page(request, 403, text.format(name=exc))
        session = await self._cookies.session_of(request, self._sessions)
        admin = Admin(name=person.name, role=person.role, person=person)
        access = with_admin(session.access if session is not None else Access(began_at=time.time()), admin)
        self._cookies.hold(request, await self._opens(request, session, access))
        return RedirectResponse(asked.to or address("/admin"), status_code=303)

    async def _vouched_for(self, request: Request, asked: Asked) -> Person:
        query = request.query_params
        if error := query.get("error", ""):
            raise NotVouchedError(f"the provider says {error if is_word(error) else 'no'}")
        # Where a provider says who it is (RFC 9207), it must be the one that was asked.
        if query.get("iss", self._provider.issuer) != self._provider.issuer:
            raise NotVouchedError("another provider has answered")
        return await self._provider.person(asked, query.get("code", ""))

    def _asked(self, request: Request) -> Asked | None:
        """What the browser's cookie says of the sign-in that the provider answers; None where there is none, it is of
        another one, or too old."""
        try:
            asked = msgspec.json.decode(self._seal.decrypt(self._cookies.asked_of(request)), type=Asked)
        except (ValueError, msgspec.MsgspecError):
            return None
        same = hmac.compare_digest(asked.state.encode(), request.query_params.get("state", "").encode())
        return asked if same and time.time() - asked.at <= LASTS_S and self._is_first(asked) else None

    def _is_first(self, asked: Asked) -> bool:
        """Whether its sign-in was not answered yet by this copy of the gateway: each asks the provider once."""
        used = self._used
        while used and (len(used) >= _MOST_USED or time.time() - next(iter(used.values())) > LASTS_S):
            del used[next(iter(used))]
        if asked.state in used:
            return False
        used[asked.state] = asked.at
        return True

    def _away(self, request: Request, exc: ProviderAwayError) -> Response:
        text = _("The provider cannot be asked now: {reason}. Try again in a moment, or sign in with a key.")
        return self._page(request, 503, text.format(reason=exc))


def own(to: str) -> str:
    """An address of the console's own, or nothing: nobody is led elsewhere after a sign-in."""
    safe = to.startswith(address("/")) and "\\" not in to and to.isprintable() and "/../" not in to
    return to if safe else ""
