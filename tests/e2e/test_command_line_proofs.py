"""What can be proved from the command line: files that nobody changed, and calls that are Backhaul's."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from backhaul_testing.receiver import Receiver
from simulators.archive import ask_for_files, filed, in_digests
from simulators.terminal import CommandLine, fits, line_of
from standardwebhooks import Webhook

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


async def test_copies_are_verified_without_the_installation(
    storing_town: Town, archive: Archive, tmp_path: Path
) -> None:
    person, other = [await storing_town.platform.register() for _ in range(2)]
    for one in (person, other):
        await ask_for_files(storing_town.platform, one, "Twilio", gzip=True)
        await one.receive(one.twilio.status(one.address("Twilio"), "SM1", "delivered"))
    files = await in_digests(person, await filed(person, 1))
    line = line_of(person, tmp_path)
    copies = tmp_path / "copies"
    got = await line.type("audits", "get", "--all", str(copies))
    assert got.code == 0, got.plain
    head = re.search(r"head of events +([0-9a-f ]+)", " ".join(fits(got, width=250)))
    assert head is not None
    there = {path.relative_to(copies).as_posix() for path in copies.rglob("*") if path.is_file()}
    assert {file.key for file in files} <= there
    assert not [name for name in there if other.registration in name]
    for key in there - {"keys.json"}:
        assert (copies / key).read_bytes() == await archive.get(key)

    # Nobody is asked any more: the keys were kept.
    keys = tmp_path / "keys.json"
    (copies / "keys.json").rename(keys)
    alone = CommandLine({"XDG_CONFIG_HOME": str(tmp_path / "nothing")})
    verify = ("audits", "verify", str(copies), "--keys", str(keys))
    sound = await alone.type(*verify)
    assert sound.code == 0, sound.plain
    assert f"{len(files)} of {len(files)} are what was signed" in sound.plain
    # By the installation's own keys, too, and likewise by the program that shares no code with any of this.
    assert (await line.pipe("audits", "verify", str(copies))).code == 0
    script = Path(__file__).parents[2] / "docs" / "verify_audit.py"
    process = await asyncio.create_subprocess_exec(sys.executable, str(script), str(copies), str(keys))
    assert await process.wait() == 0

    copy = copies / files[0].key
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    changed = await alone.type(*verify)
    assert changed.code == 7
    assert files[0].name in "".join(row.strip() for row in fits(changed))
    (found,) = (await alone.pipe(*verify, "--json")).rows
    assert [one["problem"] for one in found["findings"] if not one["valid"]] == ["hash"]
    # The same command as before mends a copy.
    assert (await line.pipe("audits", "get", "--all", str(copies))).code == 0
    assert copy.read_bytes() == whole
    assert (await alone.pipe(*verify)).code == 0


async def test_a_call_of_backhauls_is_verified_and_anything_else_is_not(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    body, headers, keys = (tmp_path / name for name in ("body", "headers", "keys.json"))

    def told() -> tuple[str, ...]:
        """What was called, as whoever was called kept it."""
        call = receiver.of("/told")[-1]
        body.write_bytes(call.body)
        headers.write_text("\n".join(f"{name}: {value}" for name, value in call.headers.items()))
        return ("signature", "verify", str(body), "--headers", str(headers), "--keys", str(keys))

    async with Receiver() as receiver:
        asked = {"types": ["message.*"], "http": {"url": receiver.url("/told")}}
        answer = await town.http.post(
            f"{person.base_url}/v1/subscriptions", json=asked, headers={"X-Api-Key": person.api_key}
        )
        keys.write_text(answer.text)
        made = answer.json()
        assert (await person.client.subscriptions.test(made["id"])).status == 200
        verify = told()
        assert (await line.pipe(*verify)).code == 0
        assert fits(await line.type(*verify))[0] == "valid"
        late = await line.pipe(*verify, "--at", "2099-01-01T00:00Z", "--json")
        assert (late.code, late.rows[0]["problem"]) == (7, "too_old")
        body.write_bytes(body.read_bytes() + b" ")
        changed = await line.type(*verify)
        assert (changed.code, "signature_wrong" in changed.plain) == (7, True)

        # By the public half alone, and by no other.
        rotated = await town.http.post(
            f"{person.base_url}/v1/subscriptions/{made['id']}/rotate-secret",
            json={"kind": "ed25519"},
            headers={"X-Api-Key": person.api_key},
        )
        (public,) = [one["public_key"] for one in rotated.json()["secrets"] if one["public_key"]]
        assert (await person.client.subscriptions.test(made["id"])).status == 200
        verify = told()
        keys.write_text(public)
        assert (await line.pipe(*verify)).code == 0
        keys.write_text("whpk_" + "A" * 43 + "=")
        assert (await line.pipe(*verify, "--json")).rows[0]["problem"] == "signature_wrong"

    # What is signed here is what the notifier's own receiver takes.
    secret = "whsec_" + "QUJD" * 8
    sign = ("signature", "sign", str(body))
    async with line.terminal(*sign) as terminal:
        await terminal.shows("Key")
        terminal.press(secret + "\n")
        assert await terminal.end() == 0
        assert secret not in terminal.shown, "a key is typed unseen"
        signed = dict(row.split(": ", 1) for row in terminal.shown.splitlines() if row.startswith("webhook-"))
    Webhook(secret).verify(body.read_bytes(), signed, json_parse=False)
