"""Subscriptions from the command line: made, changed, paused and removed, without a secret among the arguments."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from backhaul_testing.authority import Authority
from backhaul_testing.receiver import Receiver
from backhaul_testing.waiting import until
from simulators.terminal import HOSTILE, fits, line_of

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.people import Town

OWN = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


async def test_an_endpoint_is_called_as_the_options_say(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    async with Receiver() as receiver:
        made = await line.pipe(
            *("subscriptions", "add", "--type", "message.*", "--type", "reply.received", "--name", "Reports"),
            *("--url", receiver.url("/told"), "--header", "x-shop=12", "--channel", "Twilio", "--policy", "custom"),
            *("--retry-after", "5", "--retry-after", "60", "--timeout", "20", "--only-200", "--ordering", "message"),
            *("--rate", "50", "--alert", "ops@example.com", "--basic", "backhaul", "--secret", "--json"),
            given=f"the password\n{OWN}\n",
        )
        assert (made.code, "the password" in made.out + made.err) == (0, False), made.err
        (row,) = made.rows
        assert (row["types"], row["filter"]["channels"]) == (["message.*", "reply.received"], ["twilio"])
        assert (row["ordering"], row["rate_per_s"], row["alert_addresses"]) == ("message", 50, ["ops@example.com"])
        assert row["policy"] == {"kind": "custom", "retry_after_s": [5, 60], "timeout_s": 20, "only_200": True}
        assert row["secrets"][0]["secret"] == OWN
        assert (await line.pipe("subscriptions", "test", row["id"], "--type", "message.sent")).code == 0
        (call,) = receiver.of("/told")
        assert call.headers["authorization"] == "Basic " + base64.b64encode(b"backhaul:the password").decode()
        assert (call.headers["x-shop"], call.is_signed_by(OWN)) == ("12", True)

        # What is left out stays, the password among it; an empty text takes away.
        changed = await line.pipe(
            "subscriptions", "change", row["id"], "--type", "message.sent", "--channel", "", "--rate", "0", "--json"
        )
        assert changed.code == 0, changed.err
        (now,) = changed.rows
        assert (now["types"], now["filter"]["channels"], now["rate_per_s"]) == (["message.sent"], [], 0)
        assert (now["policy"], now["name"], now["secrets"][0]["secret"]) == (row["policy"], "Reports", None)
        # Of another kind, the policy has nothing of the one before.
        standard = await line.pipe("subscriptions", "change", row["id"], "--policy", "standard", "--json")
        assert (standard.code, standard.rows[0]["policy"]["kind"]) == (0, "standard"), standard.err
        assert (await line.pipe("subscriptions", "test", row["id"])).code == 0
        assert receiver.of("/told")[1].headers["authorization"] == call.headers["authorization"]

        # A token is the environment's; then the password is gone.
        of_environment = line_of(person, tmp_path, BACKHAUL_ENDPOINT_SECRET="the-token")
        assert (await of_environment.pipe("subscriptions", "change", row["id"], "--bearer")).code == 0
        assert (await line.pipe("subscriptions", "test", row["id"])).code == 0
        assert receiver.of("/told")[2].headers["authorization"] == "Bearer the-token"
        assert (await line.pipe("subscriptions", "change", row["id"], "--credentials", "")).code == 0
        receiver.answers("/told", 500)
        assert (await line.pipe("subscriptions", "test", row["id"])).code == 7
        assert "authorization" not in receiver.of("/told")[3].headers


async def test_a_document_is_what_show_writes_and_not_over_what_others_changed(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    file, key = tmp_path / "subscription.json", tmp_path / "credentials.json"
    key.write_text(json.dumps({"header": {"name": "x-key", "value": "the value"}}))
    added = await line.pipe(
        *(
            "subscriptions",
            "add",
            "--type",
            "*",
            "--url",
            "https://example.com/told",
            "--credentials",
            str(key),
            "--json",
        )
    )
    assert added.code == 0, added.err
    id_ = added.rows[0]["id"]
    file.write_text((await line.pipe("subscriptions", "show", id_, "--json")).out.replace("/told", "/heard"))
    replaced = await line.pipe("subscriptions", "change", id_, "--file", str(file), "--name", HOSTILE[:5], "--json")
    assert (replaced.code, replaced.rows[0]["http"]["url"]) == (0, "https://example.com/heard")
    assert replaced.rows[0]["http"]["credentials"]["header"]["name"] == "x-key"
    fits(await line.type("subscriptions", "show", id_))
    # The file is of a revision that is gone by now.
    late = await line.pipe("subscriptions", "change", id_, "--file", str(file))
    assert (late.code, late.err.count("\n")) == (5, 1)
    # A certificate stays beside what is taken away, and goes with all of it.
    pair = Authority(tmp_path).issue("client")
    tls = {"certificate": pair.cert.read_text(), "private_key": pair.key.read_text()}
    both = tmp_path / "both.json"
    both.write_text(json.dumps({"basic": {"username": "a", "password": "b"}, "mutual_tls": tls}))
    changing = ("subscriptions", "change", id_, "--json")
    assert (await line.pipe(*changing, "--credentials", str(both))).code == 0
    bare = await line.pipe(*changing, "--basic", "")
    assert bare.code == 0, bare.err
    shown = bare.rows[0]["http"]["credentials"]
    assert (shown["basic"], shown["mutual_tls"]["certificate"]) == (None, tls["certificate"])
    assert (await line.pipe(*changing, "--credentials", "")).rows[0]["http"]["credentials"] is None
    # The same document is a subscription of its own, too.
    copy = ("subscriptions", "add", "--file", "-", "--json")
    bare = await line.pipe(*copy, given=file.read_text())
    assert (bare.code, "http.credentials.header.value" in bare.err) == (5, True), "what is secret is in no document"
    copied = await line.pipe(*copy, "--credentials", str(key), given=file.read_text())
    assert (copied.code, copied.rows[0]["id"] != id_) == (0, True)

    for document, said in (
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ('{"typs": []}', "typs"),
        ('{"policy": "rcs"}', "policy"),
        ("{}", "--type"),
    ):
        wrong = await line.pipe("subscriptions", "add", "--file", "-", given=document)
        assert (wrong.code, wrong.err.count("\n"), said in wrong.err) == (2, 1, True), wrong.err
    for options in (["--bearer", "--basic", "a"], ["--header", "nothing"], ["--bearer", "--file", "-"]):
        wrong = await line.pipe(
            "subscriptions", "add", "--type", "*", "--url", "https://example.com/", *options, given="{}"
        )
        assert (wrong.code, wrong.err.count("\n")) == (2, 1), wrong.err
    assert (await line.pipe("subscriptions", "change", id_)).code == 2
    refused = await line.pipe("subscriptions", "add", "--type", "message.snet", "--url", "https://example.com/")
    assert (refused.code, "types[0]" in refused.err) == (5, True)


async def test_people_are_told_in_place_of_an_endpoint(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = line_of(person, tmp_path)
    made = await line.pipe("subscriptions", "add", "--type", "*", "--url", "https://example.com/told", "--json")
    id_ = made.rows[0]["id"]
    (mail,) = (
        await line.pipe("subscriptions", "change", id_, "--mail", "team@example.com", "--every", "30", "--json")
    ).rows
    assert (mail["http"], mail["mail"]) == (None, {"addresses": ["team@example.com"], "every_minutes": 30})
    back = await line.pipe("subscriptions", "change", id_, "--url", "https://example.com/told", "--json")
    assert (back.code, back.rows[0]["mail"]) == (0, None), back.err


async def test_what_waits_is_named_before_it_is_sent_or_goes(town: Town, tmp_path: Path) -> None:
    person, other = await town.platform.register(), await town.platform.register()
    line, stranger = line_of(person, tmp_path), line_of(other, tmp_path)
    async with Receiver() as receiver:
        made = await line.pipe(
            "subscriptions", "add", "--type", "message.*", "--url", receiver.url("/told"), "--name", "Reports", "--json"
        )
        id_ = made.rows[0]["id"]
        assert (await line.pipe("subscriptions", "pause", id_)).code == 2, "nobody can be asked"
        paused = await line.pipe("subscriptions", "pause", id_, "--yes", "--json")
        assert (paused.code, paused.rows[0]["state"], "0 waiting deliveries stay" in paused.err) == (0, "paused", True)
        await person.receive(
            person.twilio.status(person.address("Twilio"), "SM1", "sent"),
            person.twilio.status(person.address("Twilio"), "SM2", "sent"),
        )

        async def waiting() -> bool:
            return (await person.client.subscriptions.get(id_)).standing.waiting == 2

        await until("both to wait", waiting, within_s=60.0)
        async with line.terminal("subscriptions", "resume", id_, "--rate", "9") as terminal:
            await terminal.shows("2 waiting deliveries are sent, at 9 a second. [y/N]")
            terminal.press("n\n")
            assert await terminal.end() == 130
        assert receiver.calls == []
        async with line.terminal("subscriptions", "resume", id_) as terminal:
            await terminal.shows("[y/N]")
            terminal.press("y\n")
            assert await terminal.end() == 0

        async def told() -> bool:
            return len(receiver.of("/told")) == 2

        await until("both to be told", told, within_s=60.0)

        # Nobody else pauses, sends or deletes it.
        for asked in ("pause", "resume", "remove"):
            assert (await stranger.pipe("subscriptions", asked, id_, "--yes")).code == 4
        assert (await stranger.pipe("subscriptions", "change", id_, "--rate", "1")).code == 4
        (rotated,) = (await line.pipe("subscriptions", "rotate-secret", id_, "--kind", "ed25519", "--json")).rows
        assert {one["kind"] for one in rotated["secrets"]} == {"hmac", "ed25519"}
        async with line.terminal("subscriptions", "remove", id_) as terminal:
            await terminal.shows("0 waiting deliveries are never sent")
            terminal.press("y\n")
            assert await terminal.end() == 0
        assert (await line.pipe("subscriptions", "show", id_)).code == 4
