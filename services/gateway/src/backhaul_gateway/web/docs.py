"""``/openapi.json``, and ``/docs``: the same as a page to read.

The script and the style of the page are files of this package. A page on the origin of ``/admin`` must not run code
that somebody else can change.
"""

# Annotations are not postponed here: FastAPI could not resolve those of functions that are made inside of a function.
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import orjson
from fastapi import APIRouter, Response

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_router(document: Callable[[], dict[str, Any]]) -> APIRouter:
    """The routes of the page, of its parts, and of ``document``.

    ``document`` is called once and its result kept, since it takes a fifth of a second, and anybody may ask.
    """
    folder = files("backhaul_gateway.web") / "page"
    router = APIRouter(include_in_schema=False)
    encoded = cache(lambda: orjson.dumps(document()))

    @router.get("/openapi.json")
    async def openapi() -> Response:
        return Response(encoded(), media_type="application/json")

    def serve(path: str, name: str, media_type: str) -> None:
        content = (folder / name).read_bytes()
        headers = {"content-security-policy": _POLICY}

        async def part() -> Response:
            return Response(content, media_type=media_type, headers=headers)

        router.add_api_route("/docs" + path, part, name=name)

    serve("", "page.html", "text/html")
    serve("/page.css", "page.css", "text/css")
    serve("/page.js", "page.js", "text/javascript")
    return router
