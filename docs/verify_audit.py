#!/usr/bin/env python3
"""Checks copies of Backhaul's audit files, with Python and the `cryptography` package and nothing of Backhaul.

    python verify_audit.py DIR KEYS [--head HASH ...]

DIR holds the bucket's objects as files under their keys. KEYS is the answer of `/.well-known/backhaul-audit-keys`. A
HASH is that of a digest which you have kept, from a notice `audit.digest` or from `/v1/audits/head`. Prints what is
invalid, and how much is valid. Ends with 0 where all is valid, 1 where anything is not, 2 where nothing can be checked.

It reads as the description of the format. A digest is an object under `digests/<registration>/<chain>/` of two lines:

    {"chain":"events","deletions":[…],"digestNumber":7,…,"files":[…],"previousDigestHashValue":"…",…}
    {"algorithm":"Ed25519","keyId":"…","signature":"…"}

The first line is what is signed. It lists the files that were sealed since the digest before it, and names that one by
its object, hash and signature. So each digest holds to all before it, and whoever knows the hash of one can tell
whether anything before it was changed.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
import zlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

NAME = re.compile(r"DIGEST_\d{8}T\d{6}Z_(\d+)\.jsonl")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read_keys(path):
    """Public keys by their ids. A key's id is the beginning of its own hash, so no other key can take its place."""
    keys = {key["key_id"]: base64.b64decode(key["public_key"]) for key in json.loads(path.read_text())["keys"]}
    return {name: key for name, key in keys.items() if sha256(key)[:16] == name}


def check_digest(root, path, keys):
    """A digest, and one word that says what is wrong with it by itself, if anything is."""
    key = path.relative_to(root).as_posix()
    line, _, below = path.read_bytes().partition(b"\n")
    try:
        digest, signed = json.loads(line), json.loads(below)
        signature = base64.b64decode(signed["signature"], validate=True)
        # Below the signed line nothing is signed, so it must be exactly what is always written there.
        exact = {"algorithm": "Ed25519", "keyId": signed["keyId"], "signature": base64.b64encode(signature).decode()}
        if below != json.dumps(exact, separators=(",", ":")).encode() + b"\n":
            return None, "invalid_format"
        digest["hash"], digest["signature"] = sha256(line), signed["signature"]
        place = f"digests/{digest['registration']}/{digest['chain']}/"
        if digest["digestObject"] != key or not key.startswith(place):
            return digest, "moved"
        public = keys.get(signed["keyId"])
        if public is None or digest["digestPublicKeyId"] != signed["keyId"]:
            return digest, "key_not_found"
        text = "\n".join((
            digest["digestEndTime"],
            f"{digest['digestBucket']}/{digest['digestObject']}",
            digest["hash"],
            digest["previousDigestSignature"] or "null",
        ))  # fmt: skip
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text.encode())
    except InvalidSignature:
        return digest, "signature"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None, "invalid_format"
    return digest, ""


def check_file(root, file, deleted):
    """One word that says what is wrong with a file that a digest lists."""
    path = root / file["object"]
    if not path.is_file():
        return "" if file["number"] in deleted else "not_found"
    stored = inflated = path.read_bytes()
    if file["gzip"]:
        unzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            # One byte more than was signed is enough to know, of a file that would inflate to any size.
            inflated = unzip.decompress(stored, file["inflatedBytes"] + 1)
            if unzip.eof and unzip.unused_data:
                return "trailing_data"
        except zlib.error:
            inflated = b""
    if len(stored) != file["bytes"] or sha256(stored) != file["hashValue"]:
        return "hash"
    if len(inflated) != file["inflatedBytes"] or sha256(inflated) != file["inflatedHashValue"]:
        return "inflated_hash"
    # Each event stands in a line of its own; an array has one line more before them, and one behind them.
    events = inflated.count(b"\n") - (2 if file["format"] == "array" else 0)
    return "" if events == file["events"] else "count"


def check_chain(root, top, keys, heads, tell):
    """Goes from a chain's last digest to its first, and tells of each digest and file what is wrong with it."""
    deleted, unusable, after, first_file = set(), {}, None, None
    for path in sorted((path for path in top.rglob("*") if path.is_file()), reverse=True):
        key = path.relative_to(root).as_posix()
        digest, problem = check_digest(root, path, keys)
        heads.discard(digest["hash"] if digest else "")
        if problem:
            number = NAME.fullmatch(path.name)
            unusable[key] = int(number[1]) if number else 0
            tell("Digest", key, problem)
            continue
        # Files may be gone of which this digest, or one after theirs, says so.
        deleted |= {deletion["number"] for deletion in digest["deletions"]}
        if not check_before(after, digest, unusable, tell):
            first_file = None
        for file in digest["files"]:
            tell("File", file["object"], check_file(root, file, deleted))
        # Files are numbered as they are sealed, over all digests of a chain.
        numbers = [file["number"] for file in digest["files"]] + ([first_file] if first_file else [])
        first_file, after = numbers[0] if numbers else None, digest
        if numbers != list(range(first_file or 0, (first_file or 0) + len(numbers))):
            tell("Span", f"files {numbers[0]} to {numbers[-1]}", "gap")
        if digest["digestNumber"] == 1 and first_file not in (None, 1):
            tell("Span", f"files 1 to {first_file - 1}", "gap")
    check_before(after, None, unusable, tell)


def check_before(digest, before, unusable, tell):
    """Tells of `digest`, and whether one is missing between it and `before`, the one that is there before it."""
    if digest is None:
        return True
    number, known = digest["digestNumber"], before["digestNumber"] if before else 0
    claim = [digest[f"previousDigest{name}"] for name in ("Object", "HashValue", "Signature")]
    fact = [before[name] for name in ("digestObject", "hash", "signature")] if before else [None] * 3
    tell("Digest", digest["digestObject"], "previous" if known >= number - 1 and claim != fact else "")
    if known < number - 1:
        if claim[0] not in unusable:
            tell("Digest", claim[0], "not_found")
        if number - 2 - known > len({other for other in unusable.values() if known < other < number - 1}):
            tell("Span", f"digests {known + 1} to {number - 2}", "gap")
        return False
    if before and before["digestEndTime"] != digest["digestStartTime"]:
        tell("Span", f"{before['digestEndTime']} to {digest['digestStartTime']}", "gap")
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="DIR")
    parser.add_argument("keys", type=Path, metavar="KEYS")
    parser.add_argument("--head", action="append", default=[], metavar="HASH")
    asked = parser.parse_args()
    for head in asked.head:
        if not re.fullmatch("[0-9a-f]{64}", head):
            parser.error(f"a head is 64 hex digits: {head!r} is not the whole of one")
    if not asked.head and not (asked.root / "digests").is_dir():
        parser.error(f"{asked.root} has no folder digests: name the one that has it")
    try:
        keys, heads = read_keys(asked.keys), set(asked.head)
    except (OSError, ValueError, TypeError, KeyError) as error:
        parser.error(f"{asked.keys} does not hold public keys: {error!r}")
    checked, valid = {"Digest": 0, "File": 0, "Span": 0}, {"Digest": 0, "File": 0, "Span": 0}

    def tell(what, name, problem):
        checked[what] += 1
        valid[what] += not problem
        if problem:
            print(f"{what}\t{name if str(name).isprintable() else ascii(name)}\tINVALID: {problem}")

    for chain in sorted(asked.root.glob("digests/*/*")):
        check_chain(asked.root, chain, keys, heads, tell)
    for head in sorted(heads):
        tell("Digest", head, "unknown_head")
    print(f"{valid['Digest']}/{checked['Digest']} digests valid, {valid['File']}/{checked['File']} files valid")
    if not checked["Digest"]:
        return 2
    return 0 if checked == valid else 1


if __name__ == "__main__":
    sys.exit(main())
