"""What the documents show is so: links lead somewhere, and commands are those that they recommend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

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


FENCED = re.compile(r"^```sh$(.*?)^```$", re.DOTALL | re.MULTILINE)
ASSIGNED = re.compile(r"^([A-Z]+)=(\S.*?)(?:   #.*)?$", re.MULTILINE)
CREDENTIALS = ("Authorization", "X-Api-Key", "-u ", "--user ", "token", "bhk_", "bhi_")


def shown_credentials(text: str, variables: dict[str, str]) -> list[str]:
    """Commands of a document that put a credential into an argument, where every user of the machine can see it.

    ``variables`` are those that it uses, with what they hold; curl reads from a file what begins with ``@``."""
    commands = "\n".join(FENCED.findall(text)).replace("\\\n", " ").splitlines()
    secret = {
        name
        for name, value in variables.items()
        if not value.strip("\"'").startswith("@") and any(word in value for word in CREDENTIALS)
    }
    # What is made of something secret is so too.
    secret |= {name for name, value in variables.items() if any(re.search(rf"\$\{{?{one}\b", value) for one in secret)}
    found = []
    for command in commands:
        _, curl, arguments = command.partition("curl ")
        used = set(re.findall(r"\$\{?([A-Z]+)", arguments)) if curl else set()
        if used & secret or (curl and any(word in arguments for word in CREDENTIALS[:4])):
            found.append(command)
    return found


def test_no_command_in_the_documents_shows_a_credential() -> None:
    """What a shell puts into an argument is seen by every user of the machine."""
    texts = [document.read_text() for document in documents()]
    variables = {name: value for text in texts for name, value in ASSIGNED.findall("\n".join(FENCED.findall(text)))}
    assert {"ADMIN", "KEY", "INGEST", "CALLBACK"} <= set(variables)
    assert sum(text.count("curl ") for text in texts) > 12
    assert [command for text in texts for command in shown_credentials(text, variables)] == []


@pytest.mark.parametrize(
    "command",
    [
        """ADMIN="Authorization: Bearer $(cat .backhaul/admin-token)"\ncurl $URL -H "$ADMIN\"""",
        """curl $URL \\\n  -H "Authorization: Bearer secret\"""",
        "INGEST=$(jq -r .ingest_token tenant.json)\nPOST=$URL/in/$INGEST/api\ncurl -d a=b $POST",
        "curl -u acme:secret $URL",
    ],
)
def test_a_credential_in_an_argument_is_seen(command: str) -> None:
    text = f"```sh\n{command}\n```\n"
    assert shown_credentials(text, dict(ASSIGNED.findall(command)))
