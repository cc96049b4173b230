"""Writes docs/console-tour.md and its pictures: the console in Chromium, over a stack in which the demo has just been.

``.venv/bin/python tools/console_tour.py`` takes some two minutes. Whatever a page says of the moment (times, ids)
differs each time, so that pictures change; commit them when the pages did.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from backhaul_client import AsyncAdminClient
from backhaul_local.demo import show
from backhaul_local.demo_audit import ENV
from backhaul_local.demo_reconciliation import origins
from backhaul_local.demo_screen import Screen
from backhaul_local.demo_story import Story
from backhaul_local.stack import Stack, StackConfig
from backhaul_testing.apis.twilio import TwilioApi
from backhaul_testing.receiver import Receiver
from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = DOCS / "pictures"
TOUR = DOCS / "console-tour.md"
MAX_BYTES = 60 * 1024
_START_S = 300.0
_WIDE = {"width": 1200, "height": 760}
_NARROW = {"width": 360, "height": 720}
_COLOURS = 256
_TENANT = "acme"
_SECRET = secrets.token_hex(16)
"""By which the tenant's Twilio channel verifies callbacks once the demo is over, and samples are signed."""

_HEAD = """# A tour of the console

Over the stack of `make demo`. [How to sign in, and what holds for each page](console.md).
"""

_INDEXED = """async ([url, most]) => {
  const image = new Image(); image.src = url; await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), {width: image.width, height: image.height});
  const context = canvas.getContext("2d", {willReadFrequently: true}); context.drawImage(image, 0, 0);
  const data = context.getImageData(0, 0, image.width, image.height).data;
  const key = i => (data[i] & 248) << 16 | (data[i + 1] & 248) << 8 | data[i + 2] & 248;
  const seen = new Map();
  for (let i = 0; i < data.length; i += 4) {
    const of = seen.get(key(i)) || [0, data[i], data[i + 1], data[i + 2]]; of[0]++; seen.set(key(i), of);
  }
  const palette = [...seen.values()].sort((a, b) => b[0] - a[0]).slice(0, most).map(of => of.slice(1));
  const nearest = new Map();
  for (const [name, [, r, g, b]] of seen) {
    let best = 0, far = Infinity;
    palette.forEach(([x, y, z], at) => {
      const d = (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2; if (d < far) { far = d; best = at; }
    });
    nearest.set(name, best);
  }
  let text = "";
  for (let i = 0; i < data.length; i += 4) text += String.fromCharCode(nearest.get(key(i)));
  return {width: image.width, height: image.height, palette, pixels: btoa(text)};
}"""
"""Of a picture the colours that it has most of, and for each pixel which one is nearest."""


@dataclass(frozen=True)
class Sight:
    """One picture. ``path`` is below the tenant's pages, or the platform team's if it begins with ``/admin``; ``link``
    is a part of an address: the first link to such a one is followed from there. ``sends``: the sample that the page
    shows is sent, and followed to its event."""

    name: str
    says: str
    path: str
    link: str = ""
    dark: bool = False
    narrow: bool = False
    sends: bool = False


SIGHTS = (
    Sight("overview", "What needs a hand at a tenant's, the worst first, and how each channel stands.", ""),
    Sight(
        "overview-all", "The same of all tenants, for the platform team; dark where the system is.", "/admin", dark=True
    ),
    Sight(
        "messages", "Messages by what is known of them: state, channel, recipient, time, code of an error.", "/messages"
    ),
    Sight("message", "One message: its timeline, and the callbacks as they came.", "/messages", link="/messages/"),
    Sight("statistics", "How many were sent, delivered, read and failed, by channel and hour.", "/statistics"),
    Sight("errors", "Providers' codes of errors by how often they came, on a phone.", "/errors", narrow=True),
    Sight("communication", "What became of one communication.", "/communications", link="/communications/"),
    Sight("dead-letters", "Callbacks that could not be read: look, replay, discard.", "/dead-letters"),
    Sight("replies", "What people have answered.", "/replies", narrow=True),
    Sight("suppressions", "Who must not be written to, and since when.", "/suppressions"),
    Sight("reconciliation", "What providers' own records say beside the callbacks.", "/reconciliation", dark=True),
    Sight("deliveries", "What the tenant's own application was told, and each try.", "/deliveries"),
    Sight(
        "sample",
        "A channel was tried: a sample as the provider sends it, followed to its event.",
        "/channels/Twilio/sample",
        sends=True,
    ),
    Sight("audits", "Files of events, and the digests that are proof of them.", "/audits"),
    Sight("tenants", "Tenants, to register, suspend and look at.", "/admin/tenants"),
)
"""A page that is not there, or fails, is told of and left out."""


async def main() -> int:
    """0 when each picture was taken."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("There is no Chromium here (Debian: apt install chromium).")
    with tempfile.TemporaryDirectory(prefix="backhaul-tour-", ignore_cleanup_errors=True) as folder:
        api = TwilioApi()
        env = {"audit": ENV, "reconciler": origins(api)}
        data, logs = Path(folder, "data"), Path(folder, "logs")
        stack = Stack(StackConfig(data_dir=data, log_dir=logs, service_env=env, start_timeout=_START_S))
        try:
            with api:
                async with Receiver() as receiver, httpx.AsyncClient(timeout=10.0, trust_env=False) as http:
                    await stack.start()
                    platform = AsyncAdminClient(stack.gateway_url, stack.admin_token, http=http)
                    assert stack.object_store is not None  # noqa: S101  # narrows the type; it is started with one
                    await show(Story(stack.gateway_url, http, platform, stack.object_store, api, receiver), Screen())
                    key = await platform.add_key(_TENANT, scopes=["read", "check", "send", "manage", "ingest"])
                    await platform.put_channel(_TENANT, "Twilio", secrets=[_SECRET])
                    return await _look(stack, chromium, str(key.key[:]))
        finally:
            await stack.kill_all()


async def _look(stack: Stack, chromium: str, key: str) -> int:
    """Take each picture; how many could not be taken."""
    PICTURES.mkdir(exist_ok=True)
    missed = 0
    told = [_HEAD]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            for sight in SIGHTS:
                page = await _opened(browser, stack, key, sight)
                if page is None:
                    missed += 1
                    sys.stdout.write(f"{sight.name}: there is no such page\n")
                    continue
                picture = await _indexed(page, await page.screenshot())
                await page.context.close()
                PICTURES.joinpath(f"{sight.name}.png").write_bytes(picture)
                told.append(f"{sight.says}\n\n![{sight.says}](pictures/{sight.name}.png)\n")
                large = "" if len(picture) <= MAX_BYTES else f", more than {MAX_BYTES}"
                sys.stdout.write(f"{sight.name}: {len(picture)} bytes{large}\n")
                missed += bool(large)
        finally:
            await browser.close()
    TOUR.write_text("\n".join(told))
    return missed


async def _opened(browser: Browser, stack: Stack, key: str, sight: Sight) -> Page | None:
    """The page, as somebody sees it who has signed in; None where there is none."""
    size: Any = _NARROW if sight.narrow else _WIDE
    context = await browser.new_context(viewport=size, color_scheme="dark" if sight.dark else "light")
    page = await context.new_page()
    for credential in (stack.admin_token, key):
        await page.goto(f"{stack.gateway_url}/console/sign-in")
        await page.locator("input[name=credential]").fill(credential)
        await page.locator("form.stack button").click()
        await page.locator("form[action$='/sign-out']").wait_for()
    base = "/console" if sight.path.startswith("/admin") else f"/console/t/{_TENANT}"
    answer = await page.goto(f"{stack.gateway_url}{base}{sight.path}")
    if answer is not None and answer.ok and sight.link:
        link = page.locator(f"main a[href*='{base}{sight.link}']").first
        where = await link.get_attribute("href") if await link.count() else None
        answer = await page.goto(stack.gateway_url + where) if where is not None else None
    if answer is None or not answer.ok:
        await context.close()
        return None
    if sight.sends:
        await page.locator("input[name=secret]").fill(_SECRET)
        await page.locator("form[action$='/sample/send'] button").click()
        await page.get_by_text("Its event is in the timeline").wait_for(timeout=_START_S * 1000)
    return page


async def _indexed(page: Page, picture: bytes) -> bytes:
    """The picture with a palette, a third as large. It is reckoned on an empty page, whose policy lets it."""
    blank = await page.context.new_page()
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    found = await blank.evaluate(_INDEXED, [url, _COLOURS])
    await blank.close()
    return _png(found["width"], found["height"], found["palette"], base64.b64decode(found["pixels"]))


def _png(width: int, height: int, palette: Sequence[Sequence[int]], pixels: bytes) -> bytes:
    rows = b"".join(b"\x00" + pixels[at : at + width] for at in range(0, width * height, width))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    colours = b"".join(bytes(colour) for colour in palette)
    chunks = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
