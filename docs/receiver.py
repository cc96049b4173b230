"""An application that Backhaul tells what happens: it verifies each call, keeps what is new, answers, and prints it.

    python receiver.py 9000 .backhaul/subscription.json

The file is an answer of `POST /v1/subscriptions` or of `…/rotate-secret`: its keys verify the calls. Needs
`pip install standardwebhooks cryptography`, of which cryptography is for public keys (`whpk_…`) alone.
"""

import base64
import json
import sqlite3
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

TOLERANCE_S = 300


def verified_by_secret(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Whether a signature `v1` is that of a secret (`whsec_…`), and not older than five minutes."""
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except WebhookVerificationError:
        return False
    return True


def verified_by_public_key(key: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Whether a signature `v1a` is of the key whose public half this is (`whpk_…`), and not older than five minutes."""
    try:
        call, at = headers["webhook-id"], headers["webhook-timestamp"]
        if abs(time.time() - int(at)) > TOLERANCE_S:
            return False
        signatures = [one.partition(",")[::2] for one in headers["webhook-signature"].split()]
    except (KeyError, ValueError):
        return False
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
    for version, signature in signatures:
        try:
            if version == "v1a":
                public.verify(base64.b64decode(signature), f"{call}.{at}.".encode() + body)
                return True
        except (InvalidSignature, ValueError):
            continue
    return False


class Receiver(BaseHTTPRequestHandler):
    """One call after the other."""

    secrets: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    kept: sqlite3.Connection

    def do_POST(self) -> None:
        """Verify before anything is parsed, store before 200 is answered, and know again what is there already."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not (
            any(verified_by_secret(one, body, headers) for one in self.secrets)
            or any(verified_by_public_key(one, body, headers) for one in self.public_keys)
        ):
            self._answer(403)
            return
        with self.kept:
            told = (headers["webhook-id"], body)
            new = self.kept.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", told).rowcount == 1
        self._answer(200)
        event = json.loads(body)
        about = event["data"].get("message_id", "")
        print(event["type"], about, headers["webhook-id"], "new" if new else "known", flush=True)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing: what was told is printed above."""


def main(port: int, answer: Path) -> None:
    keys = json.loads(answer.read_text())["secrets"]
    Receiver.secrets = tuple(one["secret"] for one in keys if one["secret"])
    Receiver.public_keys = tuple(one["public_key"] for one in keys if one["public_key"])
    Receiver.kept = sqlite3.connect(":memory:")  # In truth a file, or your database.
    Receiver.kept.execute("CREATE TABLE told (webhook_id TEXT PRIMARY KEY, body BLOB)")
    server = HTTPServer(("127.0.0.1", port), Receiver)
    print(f"Listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
