"""A tiny real program in the place of a service that speaks HTTP; `GET /env` shows the environment that it got."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(dict(os.environ)).encode() if self.path == "/env" else b"ready"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    if "STAND_IN_FAILS" in os.environ:
        sys.exit("the setting STAND_IN_FAILS is wrong")
    sys.stdout.write("stand-in speaks HTTP\n")
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["STAND_IN_PORT"])), Handler).serve_forever()
