"""``/openapi.json``, and ``/docs``: the same as a page to read.

Its script and style are this package's own and served from here. A page on the origin of ``/admin`` must not run what
others may change.
"""

# No postponed annotations here: FastAPI reads those of functions that are made inside of a function.
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
    """The page and its parts, and ``document``, which is made once: that takes a fifth of a second, and anybody may
    ask."""
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
