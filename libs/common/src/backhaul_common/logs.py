"""structlog, set up once a process: JSON for machines, colours for people, a trace id in every line, no secrets."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import orjson
import structlog
from opentelemetry import trace

MASKED = "***"
_SECRET_KEYS = ("authorization", "api_key", "apikey", "token", "secret", "password", "cookie", "credential")


def configure(
    service: str, *, fmt: Literal["json", "console"] = "json", level: str = "info", stream: TextIO | None = None
) -> None:
    """Set up structlog and route the standard library's logging through it. Called once, by the composition root."""
    out = stream or sys.stdout
    number = logging.getLevelNamesMapping()[level.upper()]
    console = fmt == "console"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_id,
        mask_secrets,
        # Without locals: a frame's variables hold credentials and callbacks' bodies, and no mask would find them there.
        structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
        if not console
        else structlog.processors.StackInfoRenderer(),
    ]
    if console:
        shared.append(_show_invisible)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_dumps)
        if not console
        else structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=_traceback)
    )

    def add_service(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    structlog.configure(
        processors=[add_service, *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[add_service, *shared],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak at warning and above: their info lines repeat what the canonical lines say.
    root.setLevel(max(number, logging.WARNING))


def get_logger(**values: Any) -> structlog.typing.FilteringBoundLogger:
    """A logger with ``values`` bound to every line."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(**values)
    return logger


def mask_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor that masks values whose key says that they are secret, in mappings and lists inside the line too."""
    for key, value in event.items():
        event[key] = MASKED if _is_secret(key) else _masked(value)
    return event


def visible(text: str) -> str:
    """``text`` with escapes for what is not printable: controls, line breaks, colours, what turns the direction around.

    What a stranger sends must not move a terminal's cursor, set its title or look like a line of its own.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _show_invisible(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for the console: every text is ``visible``, in mappings and lists inside the line too.

    The rendered stack and traceback keep their line breaks; they are indented instead, see ``_traceback``.
    """
    return {visible(key): value if key in _RENDERED_LATER else _visible(value) for key, value in event.items()}


_RENDERED_LATER = ("exc_info", "stack", "stack_info")


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {_visible(key): _visible(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_visible(inner) for inner in value]
    # Numbers and what else has no text of its own are printed as they are; the rest by its repr.
    return value if value is None or isinstance(value, (bool, int, float)) else visible(repr(value))


def _traceback(out: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    """A traceback without locals, which hold secrets. An exception's message may hold what a stranger sent: no line of
    it can be taken for one of the log's."""
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    out.writelines(f"\n    {visible(line)}" for line in plain.getvalue().strip().splitlines())


def _masked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: MASKED if _is_secret(key) else _masked(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(inner) for inner in value]
    return value


def _is_secret(key: object) -> bool:
    # By the end of the name: x-api-key, admin_tokens and Set-Cookie are as secret as their last words.
    return isinstance(key, str) and key.lower().replace("-", "_").rstrip("s").endswith(_SECRET_KEYS)


def _add_trace_id(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if "trace_id" not in event:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = f"{context.trace_id:032x}"
    return event


def _dumps(value: Any, **_: Any) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # orjson refuses lone surrogates and integers beyond 64 bits; a log line must not fail the work it is about.
        return json.dumps(value, default=str, skipkeys=True)
