"""Whoever visits the console: with a browser that runs scripts, or with one that runs none."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
from bs4 import BeautifulSoup, Tag

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page

_SAME_SITE = {"sec-fetch-site": "same-origin"}
_AXE = Path(__file__).parent.parent / "console" / "vendored" / "axe.min.js"
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


class Visitor:
    """A browser without JavaScript. ``page`` is the one that it is on."""

    def __init__(self, base_url: str) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, timeout=60, follow_redirects=True, headers=_SAME_SITE)
        self.status = 0
        self.url = ""
        self.page = BeautifulSoup("", "html.parser")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.aclose()

    def at(self, base_url: str) -> Visitor:
        """The same browser at another gateway: with its cookies, and the page that it is on."""
        other = Visitor(base_url)
        other._http.cookies.update(self._http.cookies)
        other.status, other.url, other.page = self.status, self.url, self.page
        return other

    async def sign_in(self, credential: str) -> None:
        """Sign in with a key or a token, which opens its pages beside those that are open already."""
        await self.go("/console/sign-in")
        await self.submit("/sign-in", credential=credential)
        assert self.status == 200, self.text

    async def go(self, path: str, **headers: str) -> BeautifulSoup:
        """Open a page by its address, whatever is answered."""
        return self._shown(await self._http.get(path, headers=headers))

    async def download(self, path: str) -> httpx.Response:
        """A file, as it is answered."""
        return await self._http.get(path)

    async def post(self, path: str, **sent: Any) -> httpx.Response:
        """Send what no form of the page would, as httpx takes it."""
        return await self._http.post(path, **sent)

    async def follow(self, name: str) -> BeautifulSoup:
        """Follow the link of that name."""
        for link in self.page.find_all("a"):
            if link.get_text(" ", strip=True) == name:
                return await self.go(str(link["href"]))
        raise AssertionError(f"no link {name!r} on {self.url}")

    async def submit(
        self, action: str, files: dict[str, tuple[str, bytes]] | None = None, **fields: str
    ) -> BeautifulSoup:
        """Fill in the first form whose action ends like this, but for its query, and send it."""
        for form in self.page.find_all("form"):
            where = str(form.get("action", ""))
            if where.partition("?")[0].endswith(action):
                values = {**_values(form), **fields}
                if form.get("method", "get") == "get":
                    return self._shown(await self._http.get(where, params=values))
                return self._shown(await self._http.post(where, data=values, files=files))
        raise AssertionError(f"no form to {action!r} on {self.url}")

    @property
    def text(self) -> str:
        """What the page says, without its head."""
        body = self.page.body
        return " ".join((body or self.page).get_text(" ").split())

    @property
    def main(self) -> str:
        """What it says beside its frame."""
        found = self.page.find("main")
        return " ".join(found.get_text(" ").split()) if found else self.text

    def rows(self, label: str) -> list[list[str]]:
        """The rows of the table of that name, cell by cell."""
        found = [region for region in self.page.select('[role="region"]') if region.get("aria-label") == label]
        assert found, f"no table {label!r} on {self.url}"
        rows = found[0].select("tbody tr")
        return [[" ".join(cell.get_text(" ").split()) for cell in row.find_all(["th", "td"])] for row in rows]

    def _shown(self, answer: httpx.Response) -> BeautifulSoup:
        self.status, self.url = answer.status_code, str(answer.url)
        self.page = BeautifulSoup(answer.text, "html.parser")
        return self.page


def _values(form: Tag) -> dict[str, str]:
    values = {}
    for element in form.find_all(["input", "select", "textarea"]):
        name, kind = element.get("name"), element.get("type", "")
        if not name or (kind in ("checkbox", "radio") and not element.has_attr("checked")) or kind == "file":
            continue
        if element.name == "select":
            chosen = element.find("option", selected=True) or element.find("option")
            values[str(name)] = str(chosen.get("value", chosen.get_text())) if isinstance(chosen, Tag) else ""
        else:
            values[str(name)] = str(element.get("value", "") if element.name == "input" else element.get_text())
    return values


Open = Callable[..., Awaitable["Watched"]]
"""Opens a page of a real browser; see ``Watched.opened``."""


LOOKS: Sequence[dict[str, Any]] = (
    {"color_scheme": "light"},
    {"color_scheme": "dark"},
    {"viewport": {"width": 320, "height": 640}},
)
"""Contexts in which each page is looked at: light, dark, and as narrow as WCAG asks."""


@dataclass
class Watched:
    """A page of a real browser, and whatever went wrong on it: errors of scripts, refused requests, violations of the
    content policy. ``base_url`` is the gateway's."""

    page: Page
    base_url: str
    wrong: list[str] = field(default_factory=list)

    @classmethod
    async def opened(cls, browser: Browser, base_url: str, **context: Any) -> Watched:
        """A new page in a context of its own; see Playwright's ``new_context``."""
        page = await (await browser.new_context(**context)).new_page()
        watched = cls(page, base_url)
        page.on("console", watched._console)
        page.on("pageerror", lambda error: watched.wrong.append(f"{page.url}: {error}"))
        return watched

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{self.page.url}: {message.text}")

    async def sign_in(self, credential: str) -> None:
        """Sign in as people do."""
        await self.go("/console/sign-in")
        await self.page.get_by_label("API key or admin token").fill(credential)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.page.get_by_role("button", name="Sign out").wait_for()

    async def go(self, path: str) -> None:
        """Open a page by its address."""
        await self.page.goto(self.base_url + path)

    async def fits(self) -> None:
        """Whether nothing of the page but its tables is wider than the window."""
        wide = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{self.page.url} is {wide} px too wide"

    async def walk(self, *paths: str) -> None:
        """Each page, as ``accessible`` and ``fits`` ask of it."""
        for path in paths:
            await self.go(path)
            await self.accessible()
            await self.fits()

    async def accessible(self) -> None:
        """Whether the page keeps WCAG 2.2 AA, as far as axe can tell."""
        await self.page.evaluate(_AXE.read_text())
        found = await self.page.evaluate(
            "tags => axe.run({runOnly: {type: 'tag', values: tags}}).then(result => result.violations)", _RULES
        )
        told = [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found]
        assert not told, f"{self.page.url}: {json.dumps(told, indent=1)}"
