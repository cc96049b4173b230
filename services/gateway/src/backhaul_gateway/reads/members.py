"""``POST /v1/batches/{batch_id}/members``: who belongs to a batch, as JSON or as a file."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from backhaul_common.errors import Violation
from backhaul_common.lines.json_lines import NO_OBJECT
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from backhaul_gateway.admission.door import Admission
from backhaul_gateway.reads.callers import By
from backhaul_gateway.reads.communicationbodies import in_words_of_http
from backhaul_gateway.reads.memberarray import MAX_ARRAY_BYTES, lines_of
from backhaul_gateway.reads.streaming import Body, begun
from backhaul_gateway.reads.uploads import (
    A_FILE,
    MAX_FILE_BYTES,
    counted,
    format_of,
    media_type_of,
    progress_lines,
    read_whole,
    sent,
    summary,
)
from backhaul_gateway.web.filters import Text
from backhaul_gateway.web.openapi import problems
from backhaul_gateway.web.problems import PartlyDoneError

if TYPE_CHECKING:
    # The asynchronous stub exists in the type stubs only; grpc.aio's channels make the one class answer awaitables.
    from backhaul_proto.normalizer.v1.communications_pb2_grpc import CommunicationServiceAsyncStub

MAX_NAMED = 1000
"""Refused members that one answer names."""

_JSON = "application/json"
_FORMATS = {
    _JSON: pb.MEMBER_FORMAT_JSON_LINES,
    "application/x-ndjson": pb.MEMBER_FORMAT_JSON_LINES,
    "application/jsonl": pb.MEMBER_FORMAT_JSON_LINES,
    "text/csv": pb.MEMBER_FORMAT_CSV,
}
_decode = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).decode
"""What a refused member holds stands in its line as it was written: it need be no JSON that others take."""

_COUNTS = ("lines", "added", "changed", "unchanged", "refused")


class _Documented(BaseModel):
    """For the OpenAPI document only: the normalizer reads members."""

    model_config = ConfigDict(extra="forbid")


class DestinationIn(_Documented):
    """One message to the person. Without a ``channel`` it goes by the communication's. ``message_id``, where it is
    known already, says that it was sent."""

    channel: str = ""
    recipient: str = ""
    message_id: str = ""


class MemberIn(_Documented):
    """One person, by the sender's own key, which is unique within the batch."""

    member_key: str
    attributes: dict[str, str | float | bool] = Field({}, description="Numbers and booleans are kept as texts.")
    destinations: list[DestinationIn] = []


class MembersIn(_Documented):
    """Members in one JSON object; the array alone will do as well."""

    members: list[MemberIn]


class MembersAddedOut(BaseModel):
    """What became of the members, in lines: ``added`` ones are new, ``changed`` ones were there otherwise, and
    ``unchanged`` ones were there so. ``errors`` is a file, in the format of what was sent, of the ``refused`` lines,
    each with its number, the field at fault, what is wrong, and the fix; at most 1 MiB of it, and ``errors_complete``
    says whether that is all."""

    lines: int
    added: int
    changed: int
    unchanged: int
    refused: int
    errors: str
    errors_complete: bool


class MembersProgressOut(BaseModel):
    """How far it is: a line of the answer with ``progress``. ``errors`` is the next piece of the error file. The last
    line is ``done``. An answer without it was cut off: send the members once more."""

    lines: int
    added: int
    changed: int
    unchanged: int
    refused: int
    errors: str
    done: bool


class MemberRoutes:
    """Members that come, one by one or by the million."""

    def __init__(self, admission: Admission, communications: CommunicationServiceAsyncStub) -> None:
        self._admission = admission
        self._communications = communications

    def add_to(self, router: APIRouter) -> None:
        """Add the route."""
        router.add_api_route(
            "/batches/{batch_id:path}/members",
            self.add_members,
            methods=["POST"],
            response_class=Response,
            responses={
                200: {
                    "description": "They are stored, but for those that are refused.",
                    "content": {
                        _JSON: {"schema": MembersAddedOut.model_json_schema()},
                        "application/x-ndjson": {"schema": MembersProgressOut.model_json_schema()},
                    },
                },
                **problems(400, 404, 409),
            },
            openapi_extra={
                "requestBody": {
                    "required": True,
                    "content": {**dict.fromkeys(_FORMATS, A_FILE), _JSON: {"schema": _documented()}},
                }
            },
        )

    async def add_members(
        self,
        request: Request,
        by: By,
        batch_id: Text,
        progress: Annotated[
            bool, Query(description="Answer JSON Lines while it is read. Read them while you send.")
        ] = False,
    ) -> Response:
        """Add members to an open batch: JSON, up to 100,000 of them and 64 MiB; or a file of 1 GiB, CSV with a header
        line or JSON Lines. Who is there already gets what is told of them now, and destinations are added to theirs;
        repeated, it changes nothing. 409 where the batch is closed and this would change it.

        Nothing is held: what was read when something fails is stored. Where members in JSON are refused, 422 names
        them, and says what became of the others (``lines``, ``added``, ``changed``, ``unchanged``, ``refused``). Of a
        file they are in ``errors``. Counts as a callback of the tenant's rate.
        """
        first = pb.AddMembersRequest(
            tenant_id=by.tenant.id, batch_id=batch_id, format=format_of(request, _FORMATS, "Members")
        )
        self._admission.callback(by, 0)
        is_array = media_type_of(request) == _JSON
        body = Body(request, MAX_ARRAY_BYTES if is_array else MAX_FILE_BYTES)
        answers: AsyncGenerator[pb.AddMembersResponse, None] = sent(
            self._communications.AddMembers,
            first,
            lines_of(body) if is_array else body.whole_lines(),
            body=body,
            service="The normalizer",
            in_words=in_words_of_http,
        )
        if progress:
            return await begun(progress_lines(answers, _COUNTS), "application/x-ndjson")
        return await (_all_or_named(answers) if is_array else summary(answers, _COUNTS))


async def _all_or_named(answers: AsyncGenerator[pb.AddMembersResponse, None]) -> Response:
    """What became of an array's members; PartlyDoneError names those that are refused."""
    last, errors, complete = await read_whole(answers)
    done = counted(last, _COUNTS)
    if last.refused:
        stored = f"{last.added} added, {last.changed} changed, {last.unchanged} unchanged"
        raise PartlyDoneError(
            f"{last.refused} of {last.lines} members are refused; the others are stored: {stored}.",
            list(islice(_named(errors), MAX_NAMED)),
            done,
        )
    return Response(orjson.dumps({**done, "errors": "", "errors_complete": complete}), media_type=_JSON)


def _named(errors: bytes) -> Iterator[Violation]:
    """What is wrong with which members of an array, by a file of errors in JSON Lines. A line of it is a member."""
    for line in errors.splitlines():
        told = _decode(line.decode())
        place, field = f"members[{int(told['error_line']) - 1}]", told["error_field"]
        if told["error_message"] == NO_OBJECT.message:
            yield Violation(place, "The member is not a JSON object.", 'Write it as {"member_key": …}.')
        else:
            yield Violation(f"{place}.{field}" if field else place, told["error_message"], told["error_fix"])


def _documented() -> dict[str, Any]:
    """An array of members for the OpenAPI document, alone or in an object, since the route reads it by itself."""
    schema = MembersIn.model_json_schema()
    models = schema.pop("$defs")
    member = models["MemberIn"]
    member["properties"]["destinations"]["items"] = models["DestinationIn"]
    schema["properties"]["members"]["items"] = member
    return {"anyOf": [schema, {"type": "array", "items": member}]}
