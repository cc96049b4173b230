"""A gateway for the command line, which answers what a test writes."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Gateway(ThreadingHTTPServer):
    """Answers each method and path with what is said for it, the last one again and again, and remembers who asked,
    and in which host's name. An answer is a document, or text as it is; or bytes, which are cut off; or a status
    alone."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((address, port), _Handler)
        self._answers: dict[str, list[Any]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.hosts: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def says(self, asked: str, *answers: Any) -> None:
        """What answers ``asked``, such as ``GET /v1/messages``, one after the other."""
        self._answers[asked] = list(answers)

    def to(self, asked: str) -> list[Any]:
        """The bodies with which ``asked`` came, or else the queries."""
        return [given for name, given in self.asked if name == asked]

    def answer(self, asked: str) -> Any:
        answers = self._answers.get(asked, [])
        return answers.pop(0) if len(answers) > 1 else answers[0] if answers else None


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        name = f"{self.command} {path}"
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.hosts.append(self.headers.get("host", ""))
        self.server.asked.append((name, json.loads(body) if body else query))
        answer = self.server.answer(name)
        alone = isinstance(answer, int)
        self.send_response(answer if alone else 404 if answer is None else 200)
        # Two errors have this status, and its code says which.
        content = _content({"code": "failed_precondition"} if answer == 409 else {} if alone else answer)
        # What is cut off promises more.
        self.send_header("content-length", str(len(content) + isinstance(answer, bytes)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815  # the names that the server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the server's own
        """Says nothing."""


def _content(answer: Any) -> bytes:
    if isinstance(answer, bytes):
        return answer
    return answer.encode() if isinstance(answer, str) else json.dumps(answer or {}).encode()
