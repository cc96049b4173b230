"""What holds for each page of the console, whichever there are: who is let in, what a form must carry, and how it is
answered."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from html import escape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from backhaul_console.app import POLICY
from backhaul_console.pages import ROUTES
from backhaul_console.sessions import Access, Session, Sessions
from backhaul_console.visits import Page

if TYPE_CHECKING:
    from backhaul_local.stack import Stack
    from simulators.people import Town

HOSTILE = ("nothing", "a/b?c#d", "\N{RIGHT-TO-LEFT OVERRIDE}\n\r\t", "'\"><img src=x>", "\x00", "..", "\ud800", "%")
"""What somebody may put into an address in the place of an id."""
NAMED = "\"><img src=x onerror=alert(1) style='x'> <script>alert(1)</script> onload=alert(1)"
"""What somebody may have called something that the pages show."""
_SUSPECT = re.compile(r"\bon\w+\s*=|\bstyle\s*=|<style|<img|<script(?![^>]*\bsrc=)", re.IGNORECASE)
"""Whatever runs has it. What strangers wrote may have it too, as the text that it is."""


class _Running(HTMLParser):
    """Finds what a page runs, or styles, by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        bad = tag in ("style", "img") or (tag == "script" and "src" not in names)
        if bad or any(name == "style" or name.startswith("on") for name in names):
            self.found.append(self.get_starttag_text() or tag)


def running(text: str) -> list[str]:
    """The tags of a page that run something, or style themselves."""
    # Few have to be taken apart, of thousands.
    if not _SUSPECT.search(text):
        return []
    page = _Running()
    page.feed(text)
    page.close()
    return page.found


@pytest.fixture
async def sessions(installation: Stack) -> AsyncIterator[Sessions]:
    from simulators.visits_as import sessions_of

    async with sessions_of(installation) as found:
        yield found


def address_of(page: Page, tenant_id: str, value: str = "nothing") -> str:
    """The page's address, with ``value`` for each part that names something."""
    part = quote(value, safe="", errors="surrogatepass")
    path = re.sub(r"\{\w+(:\w+)?\}", lambda _: part, page.path)
    return "/console" + (f"/t/{tenant_id}" if page.side == "tenant" else "/admin") + path


def pages(method: str) -> list[Page]:
    return [page for page in ROUTES if page.method == method]


async def ask(browser: httpx.AsyncClient, method: str, where: str, **more: Any) -> httpx.Response:
    """The answer; of one that goes on for as long as somebody listens, its head."""
    async with browser.stream(method, where, **more) as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            await answer.aread()
            return answer
    return httpx.Response(answer.status_code, headers=answer.headers, text="")


def looked_at(answer: httpx.Response, where: str) -> None:
    """Whatever is answered, it is no failure of the console's own, and runs nothing."""
    assert answer.status_code != 500, f"{where}: {answer.text[:300]}"
    assert answer.headers["content-security-policy"] == POLICY, where
    assert answer.headers["x-content-type-options"] == "nosniff", where
    assert answer.headers["referrer-policy"] == "same-origin", where
    assert answer.headers["cache-control"] == "no-store", where
    assert "frame-ancestors 'none'" in POLICY
    assert "Traceback" not in answer.text, where
    if answer.headers.get("content-type", "").startswith("text/html"):
        assert running(answer.text) == [], where
        assert len(answer.content) < 100_000, f"{where} is of {len(answer.content)} bytes"


@pytest.mark.parametrize(
    "tag",
    [
        "<script>",
        "<script type=module>",
        "<STYLE>",
        "<img src=x>",
        '<p style="x">',
        "<p\nonclick = 'x'>",
        '<input value="x"onfocus=x>',
        "<svg/onload=x>",
    ],
)
def test_what_runs_is_found_and_what_only_says_so_is_not(tag: str) -> None:
    assert running(f"<!doctype html><p>x</p>{tag}") == [tag]
    assert running(f"<p title='{escape(tag)}'>{escape(tag)}</p><script src='x' defer></script>") == []


async def test_who_is_not_signed_in_is_asked_to(town: Town) -> None:
    from simulators.visits_as import browser_of

    async with browser_of(town.platform.base_url, None) as browser:
        for page in ROUTES:
            where = address_of(page, "acme")
            answer = await ask(browser, page.method, where)
            looked_at(answer, where)
            assert answer.status_code == 303, where
            assert answer.headers["location"].startswith("/console/sign-in"), where
            part = await ask(browser, page.method, where, headers={"hx-request": "true"})
            assert part.headers["hx-redirect"].startswith("/console/sign-in"), where


def _foreign(session: Session, other: Session) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Headers and fields of forms that are not the session's own."""
    own = {"form_token": session.form_token}
    yield {}, {}
    yield {}, {"form_token": ""}
    yield {}, {"form_token": other.form_token}
    yield {}, {"form_token": session.form_token[:-1] + "\N{SNOWMAN}"}
    yield {"sec-fetch-site": "cross-site"}, own
    yield {"sec-fetch-site": "same-site"}, own
    yield {"sec-fetch-site": "none"}, own


async def test_a_form_that_is_not_the_sessions_own_does_nothing(town: Town, sessions: Sessions) -> None:
    """It is refused before anything of it is looked at."""
    from simulators.visits_as import browser_of, holder, person

    tenant = await town.platform.register()
    scopes = ("read", "check", "send", "manage", "ingest")
    mine = await sessions.begin(
        Access(
            began_at=time.time(),
            admin=person("operator").admin,
            tenants=holder(tenant.id, tenant.api_key, scopes).tenants,
        )
    )
    other = await sessions.begin(person("operator"))
    async with browser_of(town.platform.base_url, mine) as browser:
        for page in pages("POST"):
            where = address_of(page, tenant.id)
            for headers, fields in _foreign(mine, other):
                answer = await ask(browser, "POST", where, data=fields, headers=headers)
                looked_at(answer, where)
                assert answer.status_code == 403, f"{where} took {fields} with {headers}"
                assert "This form is not of your present session" in answer.text
        # A browser that does not say where from names the origin.
        async with httpx.AsyncClient(base_url=town.platform.base_url, cookies=browser.cookies, timeout=60) as older:
            for page in pages("POST"):
                where = address_of(page, tenant.id)
                fields = {"form_token": mine.form_token}
                for origin in ("https://evil.example", "null", "http://127.0.0.1"):
                    answer = await ask(older, "POST", where, data=fields, headers={"origin": origin})
                    assert answer.status_code == 403, f"{where} took a form of {origin}"


async def test_each_page_answers_each_visitor_in_words(town: Town, sessions: Sessions) -> None:
    """Whoever may not is told so by the API; no page fails for what it is not shown, or for what an address names."""
    from simulators.visits_as import browser_of, holder, person

    tenant = await town.platform.register()
    reading = await tenant.client.add_key(scopes=["read"])
    visitors = {
        "operator": person("operator"),
        "support": person("support"),
        "auditor": person("auditor"),
        "tenant": holder(tenant.id, tenant.api_key, ("read", "check", "send", "manage", "ingest")),
        "reader": holder(tenant.id, reading.key, ("read",)),
    }
    async with AsyncExitStack() as open_:
        for name, access in visitors.items():
            session = await sessions.begin(access)
            browser = await open_.enter_async_context(browser_of(town.platform.base_url, session))
            side = "admin" if access.admin is not None else "tenant"
            # What an operator does concerns the tests of others, too.
            for page in ROUTES if name != "operator" else pages("GET"):
                where = address_of(page, tenant.id)
                form = {"form_token": session.form_token} if page.method == "POST" else None
                answer = await ask(browser, page.method, where, data=form)
                looked_at(answer, f"{page.method} {where} of {name}")
                if page.side != side:
                    assert answer.headers["location"].startswith("/console/sign-in"), where
                elif page.method == "POST":
                    # Nothing was filled in: at most an action without fields was done.
                    assert answer.status_code < 500 or answer.status_code in (501, 503, 504), where


async def test_what_stands_in_an_address_is_text(town: Town, sessions: Sessions) -> None:
    from simulators.visits_as import browser_of, holder, person

    tenant = await town.platform.register()
    await town.platform.client.change_tenant(tenant.id, name=NAMED)
    access = holder(tenant.id, tenant.api_key, ("read",))
    session = await sessions.begin(
        Access(began_at=time.time(), admin=person("support").admin, tenants=access.tenants),
    )
    async with browser_of(town.platform.base_url, session) as browser:
        for page in pages("GET"):
            for value in HOSTILE:
                part = quote(value, safe="", errors="surrogatepass")
                where = address_of(page, tenant.id, value) + f"?cursor={part}&q={part}&from={part}&said={part}"
                answer = await ask(browser, "GET", where)
                looked_at(answer, where)


async def test_a_session_opens_its_own_tenant_and_no_other(town: Town, sessions: Sessions) -> None:
    from simulators.visits_as import browser_of, holder

    tenant, other = await town.platform.register(), await town.platform.register()
    session = await sessions.begin(holder(tenant.id, tenant.api_key, ("read", "check", "send", "manage")))
    async with browser_of(town.platform.base_url, session) as browser:
        for page in ROUTES:
            if page.side == "tenant":
                where = address_of(page, other.id)
                form = {"form_token": session.form_token}
                answer = await ask(browser, page.method, where, data=form if page.method == "POST" else None)
                assert answer.status_code == 303, where
                assert answer.headers["location"].startswith("/console/sign-in"), where
    # A session that says that it opens another tenant than its key's is shown nothing of that one.
    forged = await sessions.begin(holder(other.id, tenant.api_key, ("read", "check", "send", "manage")))
    async with browser_of(town.platform.base_url, forged) as browser:
        for page in pages("GET"):
            if page.side == "tenant":
                answer = await ask(browser, "GET", address_of(page, other.id))
                assert other.queue_path not in answer.text or other.queue_path == other.id


async def test_a_session_is_shared_by_all_copies_and_outlives_each(town: Town, sessions: Sessions) -> None:
    """Whoever reads the store can open no session: it is found by another process that has its cookie alone."""
    from simulators.visits_as import browser_of, person

    session = await sessions.begin(person("support"))
    found = await sessions.find(session.token)
    assert found is not None
    assert found.access == session.access
    async with browser_of(town.platform.base_url, session) as browser:
        assert (await browser.get("/console/admin")).status_code == 200
        await sessions.end(session)
        assert (await browser.get("/console/admin")).status_code == 303
