"""The console's visitors."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser
    from simulators.people import Town
    from simulators.visiting import Open, Visitor, Watched


@pytest.fixture
async def visitor(town: Town) -> AsyncIterator[Visitor]:
    """A browser without JavaScript, not signed in."""
    from simulators.visiting import Visitor

    async with Visitor(town.platform.base_url) as browser:
        yield browser


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """A real browser: the system's Chromium."""
    from playwright.async_api import async_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium here (Debian: apt install chromium)")
    async with async_playwright() as playwright:
        # Its own sandbox needs rights that root in a container does not have, and it opens nothing but the gateway.
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@pytest.fixture
async def opened(town: Town, chromium: Browser) -> AsyncIterator[Open]:
    """``await opened()``: a page of a real browser in a context of its own. Whatever went wrong on any fails the test;
    one that provokes something takes it out of ``wrong``."""
    from simulators.visiting import Watched

    pages: list[Watched] = []

    async def page(**context: Any) -> Watched:
        pages.append(watched := await Watched.opened(chromium, town.platform.base_url, **context))
        return watched

    yield page
    assert not [wrong for watched in pages for wrong in watched.wrong]
