"""Every form in which an address can be written, from the table that is published."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from backhaul_notifier.door.dialing import Dialer, Limits
from backhaul_notifier.door.names import LookupFailedError, Names
from backhaul_notifier.door.outcome import DoorError, Failure, RequestError
from backhaul_notifier.door.ranges import METADATA, SPECIAL, Address, Ranges
from backhaul_notifier.door.target import MAX_URL, read_target
from door_forms import CALLED, FORMS, INVALID, Form, table
from hypothesis import given
from hypothesis import strategies as st


class Answers:
    """A resolver that says what the table says."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def addresses(self, host: str) -> Sequence[Address]:
        if not self._addresses:
            raise LookupFailedError(f"DNS knows no address of {host}.")
        return [ip_address(one) for one in self._addresses]

    async def close(self) -> None:
        """Nothing to close."""


def test_long_addresses_are_not_remembered() -> None:
    """Of those with variables each call may have another one: thousands of them would be kept for nobody."""
    tracemalloc.start()
    try:
        for number in range(2000):
            read_target(f"https://example.com/{number}/" + "x" * (MAX_URL - 40))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4_000_000


async def dialled(form: Form, ranges: Ranges) -> list[str]:
    dialer = Dialer(Names(Answers(form.resolves), lambda: 0.0), ranges, Limits())
    target = read_target(form.url)
    dialer.require(target)
    return [str(one) for one in await dialer.allowed(target)]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.form}: {form.url!r}")
async def test_each_form_becomes_what_the_table_says(form: Form) -> None:
    if form.becomes == INVALID:
        with pytest.raises(RequestError):
            read_target(form.url)
        return
    assert read_target(form.url).host == form.means
    if form.becomes == CALLED:
        assert await dialled(form, Ranges()) == list(form.dialled or [form.means])
        return
    with pytest.raises(DoorError) as told:
        await dialled(form, Ranges())
    if form.becomes == "unknown":
        assert told.value.failure is Failure.DNS_FAILED
        return
    assert told.value.failure is Failure.ADDRESS_REFUSED
    assert f" {form.becomes} address" in told.value.sentence
    # Whoever asks by a name does not learn which address of a network's inside it is.
    assert not any(address in told.value.sentence for address in form.resolves)


def test_what_is_read_once_is_read_the_same_again() -> None:
    for form in FORMS:
        if form.becomes != INVALID:
            target = read_target(form.url)
            assert read_target(target.url) == target


def test_the_published_table_is_this_one() -> None:
    page = Path(__file__).parents[3] / "docs" / "endpoint-addresses.md"
    lines = page.read_text("utf-8").splitlines()
    begin = lines.index("| form | for example | read as | becomes |")
    assert lines[begin : begin + len(FORMS) + 2] == list(table())


@given(st.ip_addresses())
def test_no_address_of_a_special_network_is_called(address: Address) -> None:
    for network, _ in SPECIAL:
        one = ip_network(network)
        if one.version == address.version and address in one:
            assert Ranges().refusal(address) is not None


@given(st.sampled_from([network for network, _ in SPECIAL]), st.data())
def test_each_special_network_is_refused_up_to_its_ends(network: str, data: st.DataObject) -> None:
    one = ip_network(network)
    at = data.draw(st.sampled_from([0, one.num_addresses - 1]) | st.integers(0, one.num_addresses - 1))
    assert Ranges().refusal(one[at]) is not None


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_in_each_form(address: Address) -> None:
    number = int(address)
    expected = Ranges().refusal(address)
    for host in (
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(hex(part) for part in address.packed),
        f"{address.packed[0]}.{number & 0xFF_FFFF}",
        f"[::ffff:{address}]",
        f"[64:ff9b::{address}]",
    ):
        found = read_target(f"https://{host}/").address
        assert found is not None
        assert Ranges().refusal(found) == expected


@given(st.text(max_size=40))
def test_whatever_is_read_can_be_sent(text: str) -> None:
    try:
        target = read_target(f"https://{text}")
    except RequestError:
        return
    assert target.url.isascii()
    assert target.url.isprintable()
    assert " " not in target.url
    assert target.rest.startswith("/")
    assert target.host == target.host.lower()


def test_path_and_query_stay_as_they_were_given() -> None:
    target = read_target("HTTPS://Example.COM:8443/a%2Fb/../c?x=%41&y=é&&z#part")
    assert target.url == "https://example.com:8443/a%2Fb/../c?x=%41&y=%C3%A9&&z"
    assert read_target("https://example.com:443?x").url == "https://example.com/?x"


def test_what_is_too_long_is_not_read() -> None:
    with pytest.raises(RequestError, match="more than"):
        read_target("https://example.com/" + "a" * MAX_URL)


class TestSettings:
    """What settings change."""

    def test_a_network_that_is_allowed_is_called(self) -> None:
        ranges = Ranges(allowed=[ip_network("127.0.0.0/8")])
        assert ranges.refusal(ip_address("127.0.0.1")) is None
        assert ranges.refusal(ip_address("::ffff:127.0.0.1")) is None
        assert ranges.refusal(ip_address("10.0.0.1")) == "private"

    def test_an_own_network_is_not_called(self) -> None:
        ranges = Ranges(own=[ip_network("8.8.0.0/16")])
        assert ranges.refusal(ip_address("8.8.8.8")) == "own"
        assert ranges.refusal(ip_address("64:ff9b::8.8.8.8")) == "own"
        assert ranges.refusal(ip_address("9.9.9.9")) is None

    def test_of_allowed_and_own_the_narrower_counts(self) -> None:
        narrow, wide = [ip_network("10.1.0.0/16")], [ip_network("10.0.0.0/8")]
        assert Ranges(allowed=narrow, own=wide).refusal(ip_address("10.1.2.3")) is None
        assert Ranges(allowed=narrow, own=wide).refusal(ip_address("10.2.2.3")) == "own"
        assert Ranges(allowed=wide, own=narrow).refusal(ip_address("10.1.2.3")) == "own"
        assert Ranges(allowed=wide, own=wide).refusal(ip_address("10.1.2.3")) == "own"

    @pytest.mark.parametrize("address", METADATA)
    def test_metadata_is_called_only_where_it_is_allowed_by_itself(self, address: str) -> None:
        one = ip_address(address)
        everything = ip_network("0.0.0.0/0" if one.version == 4 else "::/0")
        assert Ranges(allowed=[everything]).refusal(one) == "metadata"
        assert Ranges().refusal(one, trusted=True) == "metadata"
        assert Ranges(allowed=[ip_network(address)]).refusal(one) is None

    async def test_a_host_that_is_allowed_may_have_any_address(self) -> None:
        names = Names(Answers(["10.0.0.1"]), lambda: 0.0)
        dialer = Dialer(names, Ranges(), Limits(hosts=frozenset({"inside.example"})))
        assert await dialer.allowed(read_target("https://inside.example/")) == [ip_address("10.0.0.1")]
        with pytest.raises(DoorError, match="private"):
            await dialer.allowed(read_target("https://other.example/"))

    @pytest.mark.parametrize(
        ("url", "limits"),
        [
            ("http://8.8.8.8/", Limits()),
            ("https://8.8.8.8:22/", Limits(ports=frozenset({443, 8443}))),
            ("http://8.8.8.8/", Limits(plain_http=True, ports=frozenset({443}))),
        ],
    )
    def test_schemes_and_ports(self, url: str, limits: Limits) -> None:
        with pytest.raises(DoorError) as told:
            Dialer(Names(Answers([]), lambda: 0.0), Ranges(), limits).require(read_target(url))
        assert told.value.failure is Failure.URL_REFUSED
