"""What make test-upgrade does, from this version to itself, and with two services of each only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from backhaul_local.scratch import scratch
from backhaul_local.service import service_spec
from faults.account import settle
from simulators.load import Load
from simulators.people import Town
from upgrade.logged import errors
from upgrade.versions import both, names
from upgrade.witness import Witness, unlike


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_copies_are_replaced_under_load_and_nothing_is_lost_or_doubled() -> None:
    gateway = service_spec("gateway")
    absent = ("suppression_", "audit_", "reconciler_", "notifier_")
    env = {name: value for name, value in gateway.env.items() if not any(one in value for one in absent)}
    here = [service_spec("normalizer"), replace(gateway, env=env)]
    # A service that only the one version has.
    later = [service_spec("suppression"), *here]
    with scratch() as folder:
        async with (
            both(folder, here, later, {}) as versions,
            Town(versions.address, versions.after.admin_token) as town,
        ):
            tenant = await town.platform.register()
            witness = Witness(await town.platform.register(), town.platform, screened=False)
            before, after = versions.before, versions.after
            async with Load([tenant], connections=2) as load:
                await witness.hear()
                for copy in ("suppression", "normalizer", "gateway"):
                    await versions.swap(copy, after)
                    await load.more(5)
                assert [after.service(copy).running for copy in names(after)] == [True, False] * 3
                assert not before.service("gateway").running
                versions.connect_anew("normalizer")
                await witness.hear()
                assert (
                    unlike(
                        await witness.read_normalizer(before, "normalizer-2"),
                        await witness.read_normalizer(after, "normalizer"),
                    )
                    == []
                )
                for copy in ("gateway", "normalizer", "suppression"):
                    await versions.swap(copy, before)
                    await load.more(5)
            figures = await settle(before, load, tenant)
            assert figures.events
            assert not any(service.running for service in after.services)
            assert errors(service.log_path for service in (*before.services, *after.services)) == []


def test_an_answer_may_say_more_and_nothing_else() -> None:
    old = {"events": [{"id": "1", "kind": "sent"}], "next": None}
    assert unlike(old, {"events": [{"id": "1", "kind": "sent", "batch": ""}], "next": None, "total": 1}) == []
    assert unlike(old, {"events": [{"id": "1", "kind": "queued"}], "next": None}) == [
        ".events[0].kind: 'sent' and 'queued'"
    ]
    assert len(unlike(old, {"events": [], "next": None})) == 1
    assert len(unlike(old, {"next": None})) == 1


def test_errors_are_found_in_the_logs_of_both(tmp_path: Path) -> None:
    logs = []
    for version, lines in {
        "before": [{"level": "info", "event": "ready"}, *[{"level": "error", "event": "batch_failed"}] * 2],
        "after": [{"level": "warning", "event": "slow"}],
    }.items():
        (tmp_path / version).mkdir()
        logs.append(tmp_path / version / "normalizer.log")
        logs[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = errors(logs)
    assert found.startswith('before/normalizer.log says 2 times: {"level": "error", "event": "batch_failed"')
    logs[-1].write_text("Traceback (most recent call last):\n")
    assert len(errors(logs)) == 2
    assert errors([tmp_path / "after" / "gateway.log"]) == []  # It was never started.
