"""What the door dials: names that change, and connections that are kept."""

from __future__ import annotations

import asyncio
import os
import resource

import pytest
from backhaul_notifier.door.client import Door
from backhaul_notifier.door.names import KNOWN_S, UNKNOWN_S, Dns, LookupFailedError, Names
from backhaul_notifier.door.outcome import STOOD_STILL, Failure, Request
from backhaul_notifier.door.settings import DoorSettings
from backhaul_testing.waiting import until
from door_rig import Call, Endpoint, Hanging, door, endpoint, post

SHORT_S = 0.6
"""The time of an attempt that is to run out: what it waits for never comes."""


async def answered(call: Call) -> None:
    await call.answer(str(call.number).encode())


async def answered_and_ended(call: Call) -> None:
    await call.answer(str(call.number).encode(), more="Connection: close\r\n")


class TestNames:
    """A name says where it leads to at each connection, and is judged then."""

    async def test_a_name_that_is_bound_anew_is_judged_anew(self) -> None:
        # 127.0.0.2 stands for a public address: it is called, and 127.0.0.1 is not.
        names = Hanging({"hook.example": [["127.0.0.2"], ["127.0.0.1"]]})
        clock = [0.0]
        server = Endpoint(answered_and_ended)
        listening = await asyncio.start_server(server.serve, "127.0.0.2", 0)
        port = listening.sockets[0].getsockname()[1]
        inside = Endpoint(answered)
        trap = await asyncio.start_server(inside.serve, "127.0.0.1", port)
        settings = DoorSettings(notifier_plain_http=True, notifier_allowed_networks="127.0.0.2/32")  # type: ignore[arg-type]  # as the environment has it
        sender = Door(settings, resolver=names, clock=lambda: clock[0])
        try:
            request = post(f"http://hook.example:{port}/")
            assert (await sender.send(request)).status == 200
            clock[0] += KNOWN_S + 1
            outcome = await sender.send(request)
            assert outcome.failure is Failure.ADDRESS_REFUSED
            assert names.asked == ["hook.example"] * 2
            assert inside.connections == 0
        finally:
            await sender.close()
            listening.close()
            trap.close()
            server.hang_up()

    async def test_of_several_addresses_only_those_are_dialled_that_may_be(self) -> None:
        names = Hanging({"hook.example": [["10.0.0.1", "::1", "127.0.0.1", "169.254.169.254"]]})
        async with endpoint(answered) as there, door(names) as sender:
            outcome = await sender.send(post(there.url(host="hook.example")))
        assert outcome.status == 200

    async def test_addresses_of_one_family_leave_room_for_the_other(self) -> None:
        names = Hanging({"hook.example": [[*(f"2606:4700::{n}" for n in range(1, 20)), "127.0.0.1"]]})
        async with endpoint(answered) as there, door(names) as sender:
            assert (await sender.send(post(there.url(host="hook.example")))).status == 200

    async def test_the_next_address_is_tried_where_one_does_not_answer(self) -> None:
        names = Hanging({"hook.example": [["127.0.0.9", "127.0.0.1"]]})
        async with endpoint(answered) as there, door(names) as sender:
            assert (await sender.send(post(there.url(host="hook.example")))).status == 200

    async def test_a_lookup_that_hangs_costs_its_own_attempt_alone(self) -> None:
        names = Hanging({"hook.example": [["127.0.0.1"]]})
        async with endpoint(answered) as there, door(names) as sender:
            waiting = [
                asyncio.create_task(sender.send(post("http://hang.example/", timeout_s=SHORT_S))) for _ in range(40)
            ]
            await names.hanging.wait()
            assert (await sender.send(post(there.url(host="hook.example")))).status == 200
            outcomes = await asyncio.gather(*waiting)
        assert {one.failure for one in outcomes} == {Failure.DNS_FAILED}
        # All of them asked once, and none took the answer from the others by giving up.
        assert names.asked == ["hang.example", "hook.example"]

    async def test_answers_are_kept_for_seconds(self) -> None:
        clock = [0.0]
        resolver = Hanging({"a.example": [["8.8.8.8"], ["9.9.9.9"]]})
        names = Names(resolver, lambda: clock[0])
        assert [str(one) for one in await names.addresses("a.example")] == ["8.8.8.8"]
        clock[0] = KNOWN_S - 0.1
        assert [str(one) for one in await names.addresses("a.example")] == ["8.8.8.8"]
        clock[0] = KNOWN_S
        assert [str(one) for one in await names.addresses("a.example")] == ["9.9.9.9"]
        for at in (0.0, UNKNOWN_S - 0.1, UNKNOWN_S):
            clock[0] = 100 + at
            with pytest.raises(LookupFailedError):
                await names.addresses("nowhere.example")
        assert resolver.asked == ["a.example"] * 2 + ["nowhere.example"] * 2
        await names.close()

    async def test_names_that_are_kept_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("backhaul_notifier.door.names.MAX_NAMES", 2)
        resolver = Hanging({f"{one}.example": [["8.8.8.8"]] for one in "abc"})
        names = Names(resolver, lambda: 0.0)
        for one in "abcab":
            await names.addresses(f"{one}.example")
        assert resolver.asked == [f"{one}.example" for one in "abcab"]
        await names.close()

    async def test_the_machines_own_dns(self) -> None:
        dns = Dns()
        try:
            assert {str(one) for one in await dns.addresses("localhost")} & {"127.0.0.1", "::1"}
            with pytest.raises(LookupFailedError, match=r"nowhere\.invalid"):
                await dns.addresses("nowhere.invalid")
        finally:
            await dns.close()

    async def test_a_host_that_is_allowed_is_called_whatever_its_address(self) -> None:
        names = Hanging({"inside.example": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]})
        async with (
            endpoint(answered) as there,
            door(names, notifier_allowed_networks="", notifier_allowed_hosts="Inside.Example.") as sender,
        ):
            assert (await sender.send(post(there.url(host="inside.example")))).status == 200
            assert (await sender.send(post(there.url(host="other.example")))).failure is Failure.ADDRESS_REFUSED


class TestPool:
    """Connections are kept, and bounded."""

    async def test_a_connection_is_used_again(self) -> None:
        async with endpoint(answered) as there, door() as sender:
            assert [(await sender.send(post(there.url()))).answer for _ in range(3)] == ["1", "1", "1"]
            assert sender.open_connections == 1
        assert there.connections == 1

    async def test_a_connection_that_the_endpoint_gives_up_is_not_used_again(self) -> None:
        async with endpoint(answered_and_ended) as there, door() as sender:
            assert [(await sender.send(post(there.url()))).answer for _ in range(2)] == ["1", "2"]

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_a_kept_connection_that_ends_as_it_is_used_is_tried_once_more(self, method: str) -> None:
        async def once(call: Call) -> None:
            if len(there.calls) == 2:
                call.reset()
            else:
                await call.answer(str(call.number).encode())

        async with endpoint(once) as there, door() as sender:
            told = [await sender.send(post(there.url(), method=method)) for _ in range(2)]
        assert [one.answer for one in told] == ["1", "2"]
        assert [call.number for call in there.calls] == [1, 1, 2]

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_a_new_connection_that_ends_is_not(self, method: str) -> None:
        async def reset(call: Call) -> None:
            call.reset()

        async with endpoint(reset) as there, door() as sender:
            assert (await sender.send(post(there.url(), method=method))).failure is Failure.RESET
        assert len(there.calls) == 1

    async def test_nor_is_anything_sent_by_whoever_stood_still_meanwhile(self) -> None:
        may = [True]

        async def once(call: Call) -> None:
            if len(there.calls) == 2:
                may[0] = False
                call.reset()
            else:
                await call.answer()

        async with endpoint(once) as there, door() as sender:
            asked = post(there.url(), may_send=lambda: may[0])
            assert (await sender.send(asked)).status == 200
            for _ in range(2):  # When a connection has ended, and before any.
                late = await sender.send(asked)
                assert (late.failure, late.sentence) == (Failure.NO_ROOM, STOOD_STILL)
            assert len(there.calls) == 2
            # The connection that was made for it is good for the next one.
            assert (await sender.send(post(there.url()))).status == 200
            assert there.calls[-1].number == there.connections

            # It is asked once, since it writes in the same turn of the loop.
            looks = iter([True])
            assert (await sender.send(post(there.url(), may_send=lambda: next(looks)))).status == 200

    async def test_nor_is_a_kept_one_on_which_an_answer_had_begun(self) -> None:
        async def begun(call: Call) -> None:
            if len(there.calls) == 2:
                await call.write(b"HTTP/1.1 2")
                call.reset()
            else:
                await call.answer()

        async with endpoint(begun) as there, door() as sender:
            assert (await sender.send(post(there.url()))).status == 200
            assert (await sender.send(post(there.url()))).failure is Failure.RESET
        assert len(there.calls) == 2

    async def test_a_second_answer_is_not_that_of_the_next_request(self) -> None:
        async def twice(call: Call) -> None:
            answer = f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{len(there.calls)}"
            more = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale"
            await call.write((answer + more).encode())

        async with endpoint(twice) as there, door() as sender:
            assert [(await sender.send(post(there.url()))).answer for _ in range(3)] == ["1", "2", "3"]

    @pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale", b"HTTP/1.1 2", b"x"])
    async def test_nor_is_what_comes_between_them(self, more: bytes) -> None:
        async with endpoint(answered) as there, door() as sender:
            assert (await sender.send(post(there.url()))).answer == "1"
            await there.calls[0].write(more)
            await until("the connection is given up", lambda: _is(sender.open_connections == 0), within_s=10)
            assert (await sender.send(post(there.url()))).answer == "2"

    async def test_nor_is_one_tenants_answer_that_of_anothers_request(self) -> None:
        """What comes late comes after the next request was sent: it cannot be told from that one's answer. A host is
        many tenants' where it runs what each of them wrote."""

        async def late(call: Call) -> None:
            if len(there.calls) == 2:
                await there.calls[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale")
            await call.answer(str(call.number).encode(), status=200 if call.number == 1 else 500)

        async with endpoint(late) as there, door() as sender:
            told = [await sender.send(post(there.url(), of=of)) for of in ("acme.1", "globex.1", "globex.1")]
            assert [(one.status, one.answer) for one in told] == [(200, "1"), (500, "2"), (500, "2")]

    async def test_a_connection_is_not_kept_for_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("backhaul_notifier.door.client.IDLE_S", 0.1)
        async with endpoint(answered) as there, door() as sender:
            assert (await sender.send(post(there.url()))).answer == "1"
            await until("the connection is closed", lambda: _is(sender.open_connections == 0))

    async def test_no_file_is_left_for_a_connection(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        async with endpoint(answered) as there, door() as sender:
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
            try:
                outcome = await sender.send(post(there.url()))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert outcome.failure is Failure.NO_ROOM
            assert (await sender.send(post(there.url()))).status == 200

    async def test_failures_and_attempts_that_are_given_up_leave_no_file_open(self) -> None:
        async def never(call: Call) -> None:
            await call.reader.read()

        async with endpoint(never) as there, endpoint(answered) as plain, door() as sender:
            # Reads the authorities, for which the time of the others is too short.
            assert (await sender.send(post("https://127.0.0.1:1/"))).failure is Failure.CONNECT_FAILED
            held = _files()
            for _ in range(20):
                assert (await sender.send(post(there.url(), timeout_s=0.03))).failure is not None
                # It waits for the end of a head, and TLS for an answer.
                assert (await sender.send(post(plain.url(scheme="https"), timeout_s=0.03))).failure is not None
                given_up = asyncio.create_task(sender.send(post(there.url())))
                begun = len(there.calls)
                await until("it is under way", lambda begun=begun: _is(len(there.calls) > begun))  # type: ignore[misc]  # one lambda for each
                given_up.cancel()
                await asyncio.wait([given_up])
            await until("all are closed", lambda: _is(_files() <= held))

    async def test_connections_are_bounded_and_the_wait_is_not_the_endpoints(self) -> None:
        taken = asyncio.Event()

        async def hang(call: Call) -> None:
            if len(there.calls) == 2:
                taken.set()
            await there.ended.wait()

        async with endpoint(hang) as there, endpoint(answered) as other, door(notifier_max_connections=2) as sender:
            hanging = [asyncio.create_task(sender.send(post(there.url()))) for _ in range(2)]
            await taken.wait()
            outcome = await sender.send(post(there.url(), timeout_s=SHORT_S))
            assert outcome.failure is Failure.NO_ROOM
            assert not outcome.failure.endpoints
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)
            assert (await sender.send(post(other.url()))).status == 200
            await until("cancelled attempts leave no connection", lambda: _is(sender.open_connections == 1))
        assert there.connections == 2

    async def test_who_hangs_at_a_host_keeps_nobody_else_from_it(self) -> None:
        # Many tenants have endpoints at one host, a hub of applications, say: who may call is shared out by tenant.
        taken = asyncio.Event()

        async def hang(call: Call) -> None:
            if "GET /quick" in call.head:
                await call.answer()
                return
            if len(there.calls) == 150:
                taken.set()
            await there.ended.wait()

        async with endpoint(hang) as there, door() as sender:
            hanging = [asyncio.create_task(sender.send(post(there.url("/slow")))) for _ in range(150)]
            async with asyncio.timeout(60):
                await taken.wait()
            assert (await sender.send(Request("GET", there.url("/quick"), timeout_s=5))).status == 200
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)

    async def test_idle_connections_make_room_for_others(self) -> None:
        async with (
            endpoint(answered) as one,
            endpoint(answered) as two,
            endpoint(answered) as three,
            door(notifier_max_connections=2) as sender,
        ):
            for there in (one, two, one, three):
                assert (await sender.send(post(there.url()))).status == 200
                assert sender.open_connections <= 2
            # The one that was used least recently went.
            assert (await sender.send(post(one.url()))).answer == "1"
            assert (await sender.send(post(two.url()))).answer == "2"

    async def test_closing_ends_what_is_under_way(self) -> None:
        begun = asyncio.Event()

        async def hang(call: Call) -> None:
            begun.set()
            await there.ended.wait()

        async with endpoint(hang) as there, door() as sender:
            sending = asyncio.create_task(sender.send(post(there.url())))
            await begun.wait()
            await sender.close()
            assert (await sending).failure is Failure.RESET
            assert sender.open_connections == 0


async def _is(what: bool) -> bool:
    return what


def _files() -> int:
    """Open files of this process."""
    return len(os.listdir("/proc/self/fd"))
