"""What can be proved from the command line: files that nobody changed, and calls that are Backhaul's."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from simulators.archive import ask_for_files, filed, in_digests
from simulators.terminal import fits, line_of

if TYPE_CHECKING:
    from simulators.archive import Archive
    from simulators.people import Town


async def test_files_are_fetched_whole_and_one_that_was_changed_is_found(
    storing_town: Town, archive: Archive, tmp_path: Path
) -> None:
    person = await storing_town.platform.register()
    await ask_for_files(storing_town.platform, person, "Twilio")
    await person.receive(person.twilio.status(person.address("Twilio"), "SM1", "delivered"))
    (file,) = await in_digests(person, await filed(person, 1))
    line = line_of(person, tmp_path)
    assert [row["id"] for row in (await line.pipe("audits", "list", "--json")).rows] == [file.id]
    fits(await line.type("audits", "list"))
    copy = tmp_path / "copy"
    assert (await line.pipe("audits", "get", file.id, "-o", str(copy))).code == 0
    assert sha256(copy.read_bytes()).hexdigest() == file.sha256
    assert b"SM1" in (await line.pipe("audits", "get", file.id, "--decrypted")).out.encode()
    assert (await line.pipe("audits", "get", "0" * 32, "-o", str(tmp_path / "none"))).code == 4
    assert sorted(os.listdir(tmp_path)) == ["copy"]
    assert (await line.pipe("audits", "verify")).code == 0
    (event,) = await person.events()
    (proved,) = (await line.pipe("audits", "prove", event.id, "--json")).rows
    assert [row["file"]["id"] for row in proved["proofs"]] == [file.id]
    assert proved["heads"]

    await archive.put(file.key, copy.read_bytes().replace(b"delivered", b"failed___"))
    changed = await line.type("audits", "verify")
    assert changed.code == 7
    assert file.name in "".join(row.strip() for row in fits(changed))
    (result,) = (await line.pipe("audits", "verify", "--json")).rows
    assert result["done"]
    assert [one["name"] for one in result["findings"] if not one["valid"]] == [f"{file.bucket}/{file.key}"]
    assert result["valid_files"] < result["files"]
    await archive.put(file.key, copy.read_bytes())
