"""``/v1/suppressions/import`` and ``/export``: whole lists, passed through as they come and never held."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from backhaul_proto.suppression.v1 import suppression_pb2 as pb
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from backhaul_gateway.reads.callers import By
from backhaul_gateway.reads.streaming import Body, answers_of, begun
from backhaul_gateway.reads.uploads import A_FILE, MAX_FILE_BYTES, format_of, progress_lines, sent, summary
from backhaul_gateway.twins.suppressioncalls import in_words_of_http
from backhaul_gateway.twins.suppressions import FAMILIES, KINDS, SCOPES, STANDINGS
from backhaul_gateway.web.filters import Filter, microseconds, number_of, one_of
from backhaul_gateway.web.guard import Asking
from backhaul_gateway.web.moments import AwareMoment
from backhaul_gateway.web.openapi import problems

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.suppression.v1.suppression_pb2_grpc import SuppressionServiceAsyncStub

_FORMATS = {
    "text/csv": pb.FILE_FORMAT_CSV,
    "application/x-ndjson": pb.FILE_FORMAT_JSON_LINES,
    "application/jsonl": pb.FILE_FORMAT_JSON_LINES,
}
_EXPORTS: dict[str, tuple[Any, str]] = {
    "csv": (pb.FILE_FORMAT_CSV, "text/csv"),
    "jsonl": (pb.FILE_FORMAT_JSON_LINES, "application/x-ndjson"),
}
_COUNTS = ("lines", "changed", "unchanged", "refused")


class ImportedOut(BaseModel):
    """What became of a list. ``changed`` lines suppress what was not suppressed so; ``unchanged`` ones were there
    already, or a later word overrules them. ``errors`` is a file, in the list's own format, of the ``refused`` lines,
    each with its number, the field at fault, what is wrong, and the fix; at most 1 MiB of it, and ``errors_complete``
    says whether that is all."""

    lines: int
    changed: int
    unchanged: int
    refused: int
    errors: str
    errors_complete: bool


class ImportProgressOut(BaseModel):
    """How far an import is: a line of the answer with ``progress``. ``errors`` is the next piece of the error file. The
    last line is ``done``. An answer without it was cut off: send the file once more."""

    lines: int
    changed: int
    unchanged: int
    refused: int
    errors: str
    done: bool


class SuppressionFileRoutes:
    """Lists that come, and lists that go."""

    def __init__(self, suppression: SuppressionServiceAsyncStub) -> None:
        self._suppression = suppression

    def add_to(self, router: APIRouter) -> None:
        """Add both routes."""
        add = router.add_api_route
        summary = ImportedOut.model_json_schema()
        progress = ImportProgressOut.model_json_schema()
        add(
            "/suppressions/import",
            self.import_list,
            methods=["POST"],
            response_class=Response,
            responses={
                200: {
                    "description": "It was read to its end.",
                    "content": {
                        "application/json": {"schema": summary},
                        "application/x-ndjson": {"schema": progress},
                    },
                },
                **problems(404, 409),
            },
            openapi_extra={"requestBody": {"required": True, "content": dict.fromkeys(_FORMATS, A_FILE)}},
        )
        get = partial(add, methods=["GET"])
        kinds = {kind: A_FILE for _, kind in _EXPORTS.values()}
        exported: dict[int | str, dict[str, Any]] = {200: {"description": "The list.", "content": kinds}}
        get("/suppressions/export", self.export_list, response_class=Response, responses=exported)

    async def import_list(
        self,
        request: Request,
        by: By,
        principal: Asking,
        kind: Annotated[str, one_of(KINDS)] = "",
        family: Annotated[str, one_of(FAMILIES)] = "",
        scope_kind: Annotated[str, one_of(SCOPES)] = "",
        scope_id: Filter = "",
        effective_at: Annotated[
            AwareMoment | None, Query(description="RFC 3339; left out, the time of the first import.")
        ] = None,
        progress: Annotated[
            bool, Query(description="Answer JSON Lines while it is read. Read them while you send.")
        ] = False,
    ) -> Response:
        """Take over a list: CSV with a header line, or JSON Lines, as large as 1 GiB. The parameters are for lines that
        do not say it themselves; without a kind they are ``manual``.

        Nothing is held: what was read when something fails is imported. The same file again changes nothing.
        """
        first = pb.ImportRequest(
            tenant_id=by.tenant.id,
            format=format_of(request, _FORMATS, "A list"),
            kind=number_of(KINDS, kind, "kind"),
            family=number_of(FAMILIES, family, "family"),
            effective_at_us=microseconds(effective_at),
            actor=pb.ACTOR_TENANT,
            author=principal.author,
        )
        if scope_kind or scope_id:
            first.scope.kind = number_of(SCOPES, scope_kind, "scope_kind")
            first.scope.id = scope_id
        body = Body(request, MAX_FILE_BYTES)
        answers: AsyncGenerator[pb.ImportResponse, None] = sent(
            self._suppression.Import,
            first,
            body.whole_lines(),
            body=body,
            service="Suppression",
            in_words=in_words_of_http,
        )
        if progress:
            return await begun(progress_lines(answers, _COUNTS), "application/x-ndjson")
        return await summary(answers, _COUNTS)

    async def export_list(
        self,
        request: Request,
        by: By,
        format: Literal["csv", "jsonl"] = "csv",  # noqa: A002  # the parameter's public name
        family: Annotated[str, one_of(FAMILIES)] = "",
        kind: Annotated[str, one_of(KINDS)] = "",
        standing: Annotated[str, one_of(STANDINGS)] = "",
    ) -> Response:
        """The list as a file, which an import takes. An answer that ends in the middle of a chunk was cut off."""
        number, media_type = _EXPORTS[format]
        asked = pb.ExportRequest(
            tenant_id=by.tenant.id,
            format=number,
            family=number_of(FAMILIES, family, "family"),
            kind=number_of(KINDS, kind, "kind"),
            standing=number_of(STANDINGS, standing, "standing"),
        )
        headers = {"content-disposition": f'attachment; filename="suppressions.{format}"'}
        return await begun(self._exported(asked), media_type, headers, watched=request)

    async def _exported(self, request: pb.ExportRequest) -> AsyncGenerator[bytes, None]:
        with in_words_of_http():
            async with answers_of(self._suppression.Export(request)) as answers:
                async for answer in answers:
                    yield answer.data
