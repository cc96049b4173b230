"""What the documents show is so: links lead somewhere, and commands are those that they recommend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]


def documents() -> list[Path]:
    """README.md, CONTRIBUTING.md, docs/, and the READMEs of the parts."""
    parts = [
        path
        for folder in ("libs", "services", "deploy", "tests", "bench")
        for path in ROOT.glob(f"{folder}/**/README.md")
    ]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(parts)]


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """Where a document's links within the repository lead: the file, and the heading or nothing."""
    for target, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", document.read_text()):
        yield (document.parent / target if target else document).resolve(), heading


def test_every_link_leads_somewhere() -> None:
    found = [(document, *link) for document in documents() for link in links(document)]
    assert len(found) > 100
    missing = [(document.name, str(target)) for document, target, _ in found if not target.exists()]
    assert not missing
    unknown = [
        (document.name, target.name, heading)
        for document, target, heading in found
        if heading and target.suffix == ".md" and heading not in headings(target)
    ]
    assert not unknown


def test_parameters_of_addresses_are_in_alphabetical_order() -> None:
    """Twilio may send them sorted after it has signed them as they were configured."""
    texts = {path: path.read_text() for path in [*documents(), *ROOT.glob("deploy/local/src/**/*.py")]}
    queries = [
        (path, query) for path, text in texts.items() for query in re.findall(r"postevents\?([\w=&%<>-]+)", text)
    ]
    assert len({path for path, _ in queries}) > 3
    for path, query in queries:
        names = [pair.partition("=")[0] for pair in query.split("&")]
        assert names == sorted(names), (path.name, query)


def test_no_command_in_the_documents_shows_a_credential() -> None:
    """What a shell puts into an argument is seen by every user of the machine."""
    commands = [line for document in documents() for line in document.read_text().splitlines() if "curl" in line]
    assert len(commands) > 8
    for command in commands:
        assert not re.search(r"(Authorization|X-Api-Key): ?\S*.*\$|-u \S*\$", command), command
