"""How times are written, in queries and in bodies."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from backhaul_gateway.web.filters import From
from backhaul_gateway.web.moments import AwareMoment, Moment
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel, TypeAdapter, ValidationError


class Span(BaseModel):
    at: AwareMoment


@pytest.mark.parametrize("number", ["2026", "0.5", "1795888185", "-1", " 7", 2026, 0.5, True])
@pytest.mark.parametrize("kind", [Moment, AwareMoment])
def test_a_number_is_no_time(kind: Any, number: object) -> None:
    with pytest.raises(ValidationError, match="RFC 3339"):
        TypeAdapter(kind).validate_python(number)


@pytest.mark.parametrize("text", ["2026-11-01T00:00:00Z", "2026-11-01t02:00:00.000+02:00", "2026-11-01 00:00:00Z"])
@pytest.mark.parametrize("kind", [Moment, AwareMoment])
def test_times_are_read(kind: Any, text: str) -> None:
    assert TypeAdapter(kind).validate_python(text) == datetime(2026, 11, 1, tzinfo=UTC)


def test_a_date_alone_is_its_first_moment_in_a_query() -> None:
    assert TypeAdapter(Moment).validate_python("2026-11-01") == datetime(2026, 11, 1)  # noqa: DTZ001  # filters take it for UTC


async def test_a_query_and_a_body_refuse_numbers_and_name_the_field() -> None:
    app = FastAPI()

    @app.get("/")
    async def read(from_: From = None) -> str:
        return str(from_)

    @app.post("/")
    async def write(span: Span) -> str:
        return str(span.at)

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        for answer, field in (
            (await client.get("/", params={"from": "2026"}), ["query", "from"]),
            (await client.post("/", json={"at": 1795888185}), ["body", "at"]),
        ):
            assert answer.status_code == 422
            assert [one["loc"] for one in answer.json()["detail"]] == [field]
        assert (await client.get("/", params={"from": "2026-11-01T00:00:00Z"})).status_code == 200
    parameter = app.openapi()["paths"]["/"]["get"]["parameters"][0]
    assert {"type": "string", "format": "date-time"} in parameter["schema"]["anyOf"]
