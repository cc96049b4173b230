"""From nothing to the first callback by the command line: samples, and the tenant, the key and the channel they
need."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

import pytest
from backhaul_samples import PROVIDERS
from simulators.terminal import WIDTH, CommandLine, Said

if TYPE_CHECKING:
    from pathlib import Path

    from backhaul_client import AsyncTenantClient
    from backhaul_local.stack import Stack
    from simulators.people import Town

KINDS = {
    "twilio": {
        **dict.fromkeys(("accepted", "queued", "sending"), "queued"),
        **dict.fromkeys(("inbound", "stop", "start"), "inbound"),
        **{word: word for word in ("sent", "delivered", "undelivered", "failed", "canceled", "read")},
        **{f"call-{word}": word for word in ("initiated", "ringing", "completed", "busy", "failed", "canceled")},
        "call-in-progress": "answered",
        "call-no-answer": "no_answer",
    },
    "sendgrid": {
        "processed": "queued",
        "dropped": "rejected",
        "delivered": "delivered",
        "deferred": "deferred",
        "bounce": "bounced",
        "open": "opened",
        "click": "clicked",
        "spamreport": "complained",
        "unsubscribe": "unsubscribed",
        "group_unsubscribe": "unsubscribed",
        "group_resubscribe": "subscribed",
    },
    "mpulse": {
        **{word: word for word in ("sent", "delivered", "failed")},
        **dict.fromkeys(("keyword", "stop"), "inbound"),
    },
    "rcs": {
        **{word: word for word in ("sent", "delivered", "read", "failed")},
        **dict.fromkeys(("inbound", "stop", "reply"), "inbound"),
        "prepaid_blocked": "blocked_credit",
        "openurl": "clicked",
    },
    "outbound_delivery": {
        **{word: word for word in ("queued", "sent", "delivered", "undelivered", "failed")},
        "invalidnumber": "failed",
    },
    "google_rbm": {
        **{word: word for word in ("delivered", "read", "expired", "inbound")},
        "unsubscribe": "unsubscribed",
        "subscribe": "subscribed",
    },
}
SIGNED = {"twilio", "sendgrid", "google_rbm"}
TOKEN = re.compile(r"bh[ki]_[0-9a-f]{12}_[0-9a-f]{48}")
HOSTILE = "\x1b[2J\u202e"


async def opened(client: AsyncTenantClient, sample_key: str) -> dict[str, str]:
    """A channel of each provider, with the secret that follows from the key where it signs: the address of each."""
    found = {}
    for one in PROVIDERS.values():
        secrets = [one.trying(sample_key).verifies] if one.trying else []
        made = await client.put_channel(one.label, provider=one.name, secrets=secrets)
        found[one.name] = made.callback_url.partition("#")[0]
    return found


async def test_each_sample_is_proven_and_becomes_what_it_says(town: Town) -> None:
    person = await town.platform.register()
    addresses = await opened(person.client, "a key")
    assert {name: set(one.events) for name, one in PROVIDERS.items()} == {name: set(of) for name, of in KINDS.items()}
    for name, one in PROVIDERS.items():
        for event, kind in KINDS[name].items():
            signs = one.trying("a key").signs if one.trying else ""
            post = one.post(one.sample(event), addresses[name], signs)
            found = await person.client.preview(one.label, body=post.body, headers=post.headers, url=addresses[name])
            assert found.verification.result == ("verified" if name in SIGNED else "credential"), (name, event)
            (part,) = found.parts
            assert part.event is not None, (name, event, part)
            assert (part.event.kind, bool(part.event.message_id)) == (kind, True), (name, event)
            if kind in ("failed", "undelivered") and name == "twilio" and "call" not in event:
                assert part.event.error_class is not None, "a code that Twilio has"
            forged = await person.client.preview(one.label, body=post.body + b" ", headers=post.headers)
            assert (forged.verification.result == "refused") == (name in {"twilio", "sendgrid"}), (name, event)


async def test_a_sample_is_changed_signed_and_followed(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = CommandLine(
        {"XDG_CONFIG_HOME": str(tmp_path), "BACKHAUL_URL": person.base_url, "BACKHAUL_API_KEY": person.api_key}
    )
    token = person.twilio.auth_token

    # Without what signs it, nothing is sent.
    refused = await line.pipe("send", "twilio", "delivered")
    assert (refused.code, refused.out) == (5, "")
    assert "--secret" in refused.err
    assert await person.events() == []

    sent = await line.pipe(
        *("send", "Twilio", "delivered", "--message", "SM" + "7" * 32, "--override", "To=+12025550107"),
        *("--parameter", "communicationId=spring-sale", "--parameter", "a=b c", "--secret", "--follow", "--json"),
        given=f"{token}\n",
    )
    assert (sent.code, token in sent.out + sent.err) == (0, False)
    (told,) = sent.rows
    (message,) = told["messages"]
    assert (told["verification"], message["state"], message["recipient"], message["communication_id"]) == (
        "verified",
        "delivered",
        "+12025550107",
        "spring-sale",
    )
    assert [event["callback_id"] for event in message["timeline"]] == [told["callback_id"]]
    assert {pair["name"]: pair["value"] for pair in message["vars"]} == {"a": "b c", "communicationId": "spring-sale"}
    # The same once more is known already, and is in the timeline all the same.
    again = await line.pipe(
        *("send", "twilio", "delivered", "--message", "SM" + "7" * 32, "--secret", "--follow"), given=f"{token}\n"
    )
    assert again.code == 0
    assert "\x1b" not in again.out
    assert len(await person.events()) == 1

    # A person types the secret unseen, edits it, and sees it in a window of 80 columns.
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\nsed -i 's/30005/30006/' \"$1\"\nprintf '{HOSTILE}' >/dev/null\n")
    editor.chmod(0o700)
    typing = CommandLine(
        {
            "XDG_CONFIG_HOME": str(tmp_path),
            "BACKHAUL_URL": person.base_url,
            "BACKHAUL_API_KEY": person.api_key,
            "VISUAL": str(editor),
        }
    )
    async with typing.terminal("send", "twilio", "failed", "--edit", "--secret", "--follow") as terminal:
        await terminal.shows("Auth token")
        terminal.press(f"{token}\n")
        assert await terminal.end() == 0
        shown = terminal.shown
    assert token not in shown
    assert "30006" in shown
    assert all(len(row) <= WIDTH for row in Said(shown, "", 0).plain.split("\n")), shown
    async with typing.terminal("send", "twilio", "failed", "--secret") as terminal:
        await terminal.shows("Auth token")
        terminal.press("\x03")
        assert await terminal.end() == 130
        assert "Traceback" not in terminal.shown

    # What cannot be read is sent as it is, and said to be a dead letter.
    removing = CommandLine(
        {
            "XDG_CONFIG_HOME": str(tmp_path),
            "BACKHAUL_URL": person.base_url,
            "BACKHAUL_API_KEY": person.api_key,
            "VISUAL": "sed -i /Sid/d",
        }
    )
    broken = await removing.pipe("send", "twilio", "delivered", "--edit", "--secret", "--json", given=f"{token}\n")
    assert (broken.code, broken.rows[0]["parts"][0]["kind"]) == (7, None)
    assert "MessageSid" in broken.rows[0]["parts"][0]["dead_letter"]
    # Looking is no sending.
    looked = await line.pipe("send", "twilio", "read", "--preview")
    assert looked.code == 0
    assert "refused" in looked.out
    assert len(await person.events()) == 2
    # Whoever stops reading ends it, and it is sent all the same.
    process = await line.start("send", "twilio", "sent", "--secret", "--json")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout._transport.close()  # type: ignore[attr-defined]  # a reader has no way to stop
    process.stdin.write(f"{token}\n".encode())
    assert await process.wait() == 0
    assert await process.stderr.read() == b""


async def test_only_sendgrid_signs_with_sendgrids_key(town: Town, tmp_path: Path) -> None:
    person = await town.platform.register()
    line = CommandLine(
        {"XDG_CONFIG_HOME": str(tmp_path), "BACKHAUL_URL": person.base_url, "BACKHAUL_API_KEY": person.api_key}
    )
    refused = await line.pipe("send", "sendgrid", "bounce")
    assert refused.code == 5
    assert "--signing-key" in refused.err
    pair = PROVIDERS["sendgrid"].trying
    assert pair is not None
    own = pair("of this test")
    file = tmp_path / "key.pem"
    file.write_text(own.signs)
    file.chmod(0o600)
    wrong = await line.pipe("send", "sendgrid", "bounce", "--signing-key", str(file))
    assert wrong.code == 5
    await person.client.put_channel("SendGrid", secrets=[person.sendgrid.public_key, own.verifies])
    sent = await line.pipe(
        *("send", "sendgrid", "bounce", "--signing-key", str(file), "--override", "custom.depth=3"),
        *("--override", "asm_group_id=7", "--follow", "--json"),
    )
    assert sent.code == 0, sent.err
    assert (sent.rows[0]["content"]["custom"], sent.rows[0]["content"]["asm_group_id"]) == ({"depth": 3}, 7)
    assert sent.rows[0]["messages"][0]["state"] == "bounced"
    file.write_text("no key")
    assert (await line.pipe("send", "sendgrid", "bounce", "--signing-key", str(file))).code == 2
    # Where nothing is signed, a name and a password may be asked for.
    await person.client.put_channel("mPulse", secrets=[{"username": "acme", "password": "se:same"}])
    assert (await line.pipe("send", "mpulse", "keyword")).code == 5
    told = await line.pipe("send", "mpulse", "keyword", "--secret", "--follow", "--json", given="acme:se:same\n")
    assert (told.code, told.rows[0]["messages"][0]["state"]) == (0, "inbound")
    assert "se:same" not in told.out + told.err
    # A channel that only observes takes it unsigned, and says so.
    await person.client.put_channel("SendGrid", verification="observe")
    observed = await line.pipe("send", "sendgrid", "open", "--json")
    assert (observed.code, observed.rows[0]["verification"]) == (0, "observed_invalid")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["send"], 2, "--list"),
        (["send", "pigeon", "sent"], 2, "twilio"),
        (["send", "twilio", "flown"], 2, "delivered"),
        (["send", "rcs", "read"], 4, "channels add RCS"),
        (["send", "twilio", "read", "--channel", "SendGrid"], 2, "sendgrid"),
        (["send", "twilio", "read", "--override", "To"], 2, "--override"),
        (["send", "twilio", "read", "--signing-key", "missing"], 2, "SendGrid"),
        (["send", "sendgrid", "open", "--override", "email.a=b"], 2, "email"),
    ],
)
async def test_what_cannot_be_sent_is_said_in_one_line(
    town: Town, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    person = await town.platform.register()
    line = CommandLine(
        {"XDG_CONFIG_HOME": str(tmp_path), "BACKHAUL_URL": person.base_url, "BACKHAUL_API_KEY": person.api_key}
    )
    found = await line.pipe(*arguments)
    assert (found.code, found.out, found.err.count("\n")) == (code, "", 1)
    assert said in found.err


async def test_from_nothing_to_the_first_callback_and_on_from_where_it_stopped(
    town: Town, installation: Stack, tmp_path: Path
) -> None:
    line = CommandLine({"XDG_CONFIG_HOME": str(tmp_path)})
    await line.pipe(
        "profile", "add", "team", "--url", installation.gateway_url, "--admin", given=installation.admin_token
    )
    asked = ("init", "--tenant", "by-init", "--provider", "twilio", "--profile", "team")
    assert (await line.pipe(*asked)).code == 2, "nobody can be asked"
    assert (await line.pipe("init", "--yes")).code == 2

    # Somebody at a terminal is asked for what is missing.
    async with line.terminal("init", "--profile", "team") as terminal:
        await terminal.shows("Tenant")
        terminal.press("by-init\n")
        await terminal.shows("Provider")
        terminal.press("twilio\n")
        await terminal.shows("send a sample?")
        terminal.press("y\n")
        assert await terminal.end() == 0
        shown = terminal.shown
    file = tmp_path / "backhaul" / "config.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "/in/bhi_" in shown
    assert "verified" in shown
    assert "for trying" in shown

    # Again, it finds all of it.
    again = await line.pipe(*asked, "--yes", "--json")
    assert again.code == 0, again.err
    (told,) = again.rows
    assert (told["tenant"], told["profile"], told["channel"], told["secret_made_for_trying"]) == (
        "by-init", "by-init", "Twilio", True,
    )  # fmt: skip
    tenant = await town.platform.client.tenant("by-init")
    assert (len(tenant.keys), len(tenant.channels), told["message"]["event_count"]) == (2, 1, 1)
    assert told["callback_url"] in re.sub(r"\x1b\[[0-9;]*m|\r|\n", "", shown)

    # It stopped when the tenant was made: other keys are made, and they open it.
    file.write_text(re.sub(r"\[profiles.by-init\](\n.+)*", "", file.read_text()))
    resumed = await line.pipe(*asked, "--yes", "--json")
    assert resumed.code == 7, "the secret of the channel went with the profile"
    assert "--secret" in resumed.err
    assert not TOKEN.search(resumed.err)
    assert len((await town.platform.client.tenant("by-init")).keys) == 4
    others = await line.pipe(
        "init", "--tenant", "by-init", "--provider", "sendgrid", "--profile", "team", "--yes", "--json"
    )
    assert (others.code, others.rows[0]["message"]["state"]) == (0, "delivered")
    # What init keeps, send signs with.
    sent = await line.pipe("send", "sendgrid", "click", "--profile", "by-init", "--follow", "--json")
    assert (sent.code, sent.rows[0]["verification"]) == (0, "verified")
    # A provider's own secret is read, kept nowhere here, and signs the sample.
    given = "0123456789abcdef0123456789abcdef"
    own = await line.pipe(
        *("init", "--tenant", "by-init", "--provider", "twilio", "--channel", "Texts", "--secret"),
        *("--profile", "team", "--yes", "--json"),
        given=f"{given}\n",
    )
    assert (own.code, own.rows[0]["message"]["state"]) == (0, "delivered")
    assert not own.rows[0]["secret_made_for_trying"]
    assert given not in own.out + own.err + file.read_text()

    # The channel is there now, and keeps its secret: another one is not taken without a word.
    texts = ("init", "--tenant", "by-init", "--provider", "twilio", "--channel", "Texts", "--secret")
    assert (await line.pipe(*texts, "--profile", "team", "--yes", given=f"{given}\n")).code == 0
    other = await line.pipe(*texts, "--profile", "team", "--yes", given=f"{given[::-1]}\n")
    assert (other.code, "backhaul channels add Texts --secret --profile by-init" in other.err) == (7, True), other.err

    # SendGrid's own key is taken, and signs nothing here: that is said, and nothing is sent.
    (public,) = [PROVIDERS["sendgrid"].trying("another's").verifies]  # type: ignore[misc]  # it makes one
    real = await line.pipe(
        *("init", "--tenant", "by-init", "--provider", "sendgrid", "--channel", "Mails", "--secret"),
        *("--profile", "team", "--yes", "--json"),
        given=f"{public}\n",
    )
    assert (real.code, real.rows[0]["message"]) == (7, None)
    assert "--signing-key" in real.err

    # A profile of another tenant, and one of another place, are left alone.
    await line.pipe("tenants", "add", "by-init-2", "--name", "x", "--queue-path", "by-init-2", "--profile", "team")
    mixed = await line.pipe(
        "init", "--tenant", "by-init-2", "--provider", "rcs", "--as", "by-init", "--profile", "team", "--yes"
    )
    assert mixed.code == 2
    assert "--as" in mixed.err
    kept = file.read_text()
    for taken in ("by-init", "no name"):
        never = await line.pipe(
            "init", "--tenant", "by-init-3", "--provider", "rcs", "--as", taken, "--profile", "team", "--yes"
        )
        assert never.code == 2
    assert (await line.pipe("tenants", "show", "by-init-3", "--profile", "team")).code == 4
    assert file.read_text() == kept
    for gone in ("by-init", "by-init-2"):
        await town.platform.client.delete_tenant(gone, purge=True)
