"""What was found, as lines for people and as JSON for programs.

Both are contracts: fields of the lines are separated by tabs, and stay what they are; so do the names in the JSON.
"""

from __future__ import annotations

import json

from backhaul_digests.chain import Span
from backhaul_digests.findings import Tally
from backhaul_digests.line import iso
from backhaul_digests.model import Finding, Subject

_SUBJECTS = {Subject.DIGEST: "Digest", Subject.FILE: "File", Subject.SPAN: "Span"}


def line(finding: Finding) -> str:
    """``File<tab>bucket/key<tab>INVALID: hash<tab>It was changed: …``."""
    said = "valid" if finding.valid else f"INVALID: {finding.problem}"
    return "\t".join((_SUBJECTS[finding.subject], printable(finding.name), said, printable(finding.detail))).rstrip()


def summary(tally: Tally, span: Span) -> list[str]:
    """How many were valid of each, and of which span of time."""
    if not tally.digests:
        return [f"{_asked(span)}: no digests found."]
    found = f"{iso(tally.found_from_us)} to {iso(tally.found_to_us)}" if tally.found_to_us else "nothing that is valid"
    return [
        f"{_asked(span)}; found: {found}.",
        f"{tally.valid_digests}/{tally.digests} digests valid, {tally.valid_files}/{tally.files} files valid",
    ]


def to_json(finding: Finding) -> str:
    """One finding, as a JSON object."""
    said = {
        "subject": finding.subject,
        "name": finding.name,
        "chain": finding.chain,
        "valid": finding.valid,
        "problem": finding.problem,
        "detail": finding.detail,
    }
    return json.dumps(said)


def summary_json(tally: Tally) -> str:
    """The last line: everything was checked."""
    said = {
        "done": True,
        "digests": tally.digests,
        "valid_digests": tally.valid_digests,
        "files": tally.files,
        "valid_files": tally.valid_files,
        "found_from": iso(tally.found_from_us) if tally.found_to_us else "",
        "found_to": iso(tally.found_to_us) if tally.found_to_us else "",
        "valid": not tally.invalid and tally.digests > 0,
    }
    return json.dumps(said)


def printable(text: str) -> str:
    """``text`` without anything that a terminal would obey: names of objects can be anything."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _asked(span: Span) -> str:
    begin = iso(span.from_us) if span.from_us else "the beginning"
    return f"Asked for: {begin} to {iso(span.to_us) if span.to_us else 'now'}"
