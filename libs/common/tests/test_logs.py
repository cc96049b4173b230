"""Log lines: JSON that parses whatever is in it, with a trace id, and without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from backhaul_common import logs
from backhaul_common.tracing import Tracing


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where the lines go. What a process sets up once is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("gateway", level="debug", stream=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json(out: io.StringIO) -> None:
    logs.get_logger(component="x").info("stored", count=3, what={"a": b"\x00"}, text="two\nlines ✓")
    (line,) = lines(out)
    assert line["event"] == "stored"
    assert line["service"] == "gateway"
    assert line["component"] == "x"
    assert line["level"] == "info"
    assert line["count"] == 3
    assert line["text"] == "two\nlines ✓"
    assert line["timestamp"].endswith("Z")
    assert "trace_id" not in line


@pytest.mark.parametrize(
    "hostile", ["\ud800", 1 << 80, {(1, 2): 3}, {1: 2}, float("nan"), object(), "\x00\x1b[31m", {"a": {"b": "\udfff"}}]
)
def test_no_value_makes_a_log_call_fail(hostile: object, out: io.StringIO) -> None:
    logs.get_logger().info("odd", value=hostile)
    (line,) = lines(out)
    assert "value" in line


@pytest.mark.parametrize(
    "key",
    [
        *("authorization", "Authorization", "token", "api_key", "X-Api-Key", "password", "secrets", "Cookie", "tokens"),
        *("Set-Cookie", "ingest_token", "admin_password", "apikey", "credential"),
    ],
)
def test_secrets_are_masked(key: str, out: io.StringIO) -> None:
    log = logs.get_logger()
    log.info("direct", **{key: "hunter2"})
    log.info("nested", headers={"a": {key: "hunter2"}, "Accept": "*/*"})
    log.info("list", **{key: ["hunter2"]})
    log.info("inside", all=[{key: "hunter2"}])
    assert "hunter2" not in out.getvalue()
    assert lines(out)[0][key] == logs.MASKED
    assert lines(out)[1]["headers"] == {"a": {key: logs.MASKED}, "Accept": "*/*"}


def test_masking_leaves_the_callers_values_alone(out: io.StringIO) -> None:
    headers = {"authorization": "Basic abc"}
    logs.get_logger().info("x", headers=headers)
    assert headers == {"authorization": "Basic abc"}


def test_the_trace_id_of_the_current_span(out: io.StringIO) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with Tracing("gateway", None).span("x", parent=f"00-{trace_id}-b7ad6b7169203331-01"):
        logs.get_logger().info("inside")
        logs.get_logger().info("own", trace_id="given")
        logging.getLogger("library").warning("theirs %s", 1)
    assert [line["trace_id"] for line in lines(out)] == [trace_id, "given", trace_id]


def _fail(api_key: str) -> None:
    local_secret = f"hunter{len(api_key)}"
    raise RuntimeError("it broke" + local_secret[:0])


def test_exceptions_are_json_without_the_values_of_variables(out: io.StringIO) -> None:
    try:
        _fail("**")
    except RuntimeError as exc:
        logs.get_logger().error("failed", exc_info=exc)
        logging.getLogger("library").exception("theirs")
    for line in lines(out):
        (exception,) = line["exception"]
        assert exception["exc_type"] == "RuntimeError"
        assert exception["exc_value"] == "it broke"
        assert [frame["name"] for frame in exception["frames"]][-1] == "_fail"
    assert "hunter2" not in out.getvalue()


def test_the_standard_library_comes_in_the_same_form(out: io.StringIO) -> None:
    logging.getLogger("pymongo").warning("slow: %s ms", 12)
    logging.getLogger("pymongo").info("chatter")
    (line,) = lines(out)
    assert line["event"] == "slow: 12 ms"
    assert line["level"] == "warning"
    assert line["service"] == "gateway"


def test_levels_filter() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure("gateway", level="warning", stream=stream)
        logs.get_logger().info("quiet")
        logs.get_logger().warning("loud")
    finally:
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_the_console_shows_no_variables_either() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure("gateway", fmt="console", stream=stream)
        try:
            _fail("**")
        except RuntimeError as exc:
            logs.get_logger().error("failed", exc_info=exc, token="hunter2")
    finally:
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)
    text = stream.getvalue()
    assert "it broke" in text
    assert "hunter2" not in text
    assert "\x1b[" not in text  # A file is no terminal.


HOSTILE = "/y\x1b[2J\x1b]0;title\x07\x9b31m\r\n2026-01-01 [info] forged\u2028\u202eterces\u200b\x7f\x00\ud800"


@pytest.fixture
def console() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("gateway", fmt="console", level="debug", stream=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def printable(stream: io.StringIO) -> list[str]:
    """The lines that were written, which hold nothing but what can be seen."""
    *found, rest = stream.getvalue().split("\n")
    assert rest == ""
    assert all(line.isprintable() for line in found)
    return found


@pytest.mark.parametrize(
    "value",
    [HOSTILE, {HOSTILE: HOSTILE}, [HOSTILE], (HOSTILE, 1), [{"a": [HOSTILE]}], HOSTILE.encode("utf-8", "replace")],
)
def test_the_console_shows_what_cannot_be_seen(value: object, console: io.StringIO) -> None:
    logs.get_logger().info("request", path=value, plain="grün ✓ 10 %")
    (line,) = printable(console)
    assert "x1b[2J" in line
    assert "grün ✓ 10 %" in line


def test_neither_events_nor_names_nor_other_libraries_reach_the_terminal_raw(console: io.StringIO) -> None:
    logs.get_logger().warning(HOSTILE, **{"a\x1bb": 1})
    # pytest keeps what other libraries log, and could not pass half of a surrogate pair on to another process.
    logging.getLogger("some.library").error("said %s", HOSTILE.encode("utf-8", "replace").decode())
    assert len(printable(console)) == 2


def test_no_line_of_a_traceback_looks_like_one_of_the_log(console: io.StringIO) -> None:
    def fail() -> None:
        raise ValueError(HOSTILE)

    try:
        fail()
    except ValueError as exc:
        logs.get_logger().error("failed", exc_info=exc)
    first, *rest = printable(console)
    assert "failed" in first
    assert len(rest) > 2
    assert all(line.startswith("    ") for line in rest)
    assert any("forged" in line for line in rest)
