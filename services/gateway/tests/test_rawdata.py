"""A provider's own data in answers: whatever it is, readers can take it, and nobody waits for it."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest
from backhaul_gateway.twins.rawdata import DEEPEST, MAX_FIELD, MAX_NUMBER, data_of
from backhaul_gateway.twins.turns import Steps, Turns, finished
from hypothesis import given
from hypothesis import strategies as st

MAX_STEP_S = 0.02
"""Far more than a step takes, and far less than what it is part of."""


def shown(raw: bytes) -> tuple[str, Any]:
    data_format, data = finished(data_of(raw))
    return data_format, json.loads(data)


def as_base64(raw: bytes) -> tuple[str, str]:
    return "base64", base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", ("base64", "")),
        (b'{"a": [1, null, "x"]}', ("json", {"a": [1, None, "x"]})),
        (b"a=1&a=2&a=3&b=", ("form", {"a": ["1", "2", "3"], "b": ""})),
        (b"a=%ff", ("form", {"a": "\ufffd"})),
        (b' \n{"a": "]]]{{{ 1e999 \\\\\\" [ "}\n', ("json", {"a": ']]]{{{ 1e999 \\" [ '})),
        (b'["\\ud83d\\ude00"]', ("json", ["\U0001f600"])),
        (b"[1e308, -1.7e-308, 1e-400]", ("json", [1e308, -1.7e-308, 0.0])),
        (b"[" + b"9" * MAX_NUMBER + b"]", ("json", [int("9" * MAX_NUMBER)])),
        (b"[" * DEEPEST + b"]" * DEEPEST, ("json", json.loads("[" * DEEPEST + "]" * DEEPEST))),
        (b"[" + b"[],{}," * 200_000 + b"1]", ("json", [*([[], {}] * 200_000), 1])),
    ],
)
def test_data(raw: bytes, expected: object) -> None:
    assert shown(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b"[-1e+00999]",
        b'{"a": Infinity}',
        b"[" * 100_000,
        b"[" * 100 + b"]" * 100,
        b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
        b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1),
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b"{",
        b"[1] x",
        b"[01]",
        b"\xff\xfe",
        b'["\xff"]',
        b"plain",
        b"[" + b"9" * 5000 + b"]",
        b"[0." + b"1" * 5000 + b"]",
        b"[" + b"9" * 400 + b".5]",
        # The number lies across two pieces of what is looked at.
        b"[" + b" " * ((16 << 10) - 3) + b"1e999]",
        b"[" + b" " * ((16 << 10) - 300) + b"9" * 5000 + b"]",
        b"a=" + b"x" * (MAX_FIELD + (4 << 10) + 1),
    ],
)
def test_hostile_data_is_kept_as_bytes(raw: bytes) -> None:
    assert shown(raw) == as_base64(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(value=st.lists(JSON) | st.dictionaries(st.text(), JSON), ascii_only=st.booleans(), cut=st.integers(0, 10))
def test_json_is_json_and_what_is_cut_off_is_not(value: Any, ascii_only: bool, cut: int) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert shown(raw) == ("json", value)
    damaged = raw[: len(raw) - cut]
    if cut and damaged[:1] in (b"{", b"["):
        try:
            expected: tuple[str, Any] = "json", json.loads(damaged)
        except ValueError:
            expected = as_base64(damaged)
        assert shown(damaged) == expected


@given(raw=st.binary())
def test_whatever_it_is_it_can_be_shown(raw: bytes) -> None:
    data_format, data = shown(raw)
    if data_format == "base64":
        assert base64.b64decode(data) == raw


HEAVY = [
    b"[" + b"[]," * 300_000 + b"1]",
    b'["' + b'","' * 300_000 + b'"]',
    b"[" + b"1e100," * 150_000 + b"1]",
    b"[" + (b"9" * 199 + b",") * 5_000 + b"1]",
    b'["' + b"\\n" * 500_000 + b'"]',
    b'["' + b'\\\\\\"' * 250_000 + b'"]',
    b"&".join(b"a%d=%%41" % n for n in range(100_000)),
    b"\xff" * 1_000_000,
]


@pytest.mark.parametrize("raw", HEAVY, ids=[repr(raw[:12]) for raw in HEAVY])
def test_no_step_takes_long(raw: bytes) -> None:
    def durations() -> list[float]:
        took: list[float] = []
        steps = data_of(raw)
        while True:
            began = time.thread_time()
            try:
                next(steps)
            except StopIteration:
                return took
            finally:
                took.append(time.thread_time() - began)

    # On a busy machine some step of every try takes longer than it should. All tries have the same steps, so the least
    # of a step's times says what the step itself takes.
    least = durations()
    for _ in range(20):
        if max(least) < MAX_STEP_S:
            return
        least = list(map(min, zip(least, durations(), strict=True)))
    assert max(least) < MAX_STEP_S


async def test_turns_let_the_loop_work_and_others_have_their_turn() -> None:
    turns = Turns()
    seen: list[str] = []
    ticks = 0

    def work(name: str, steps: int) -> Steps[str]:
        for _ in range(steps):
            began = time.perf_counter()
            while time.perf_counter() - began < 0.002:
                pass  # A step that computes.
            seen.append(name)
            yield
        return name

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    answers = await asyncio.gather(turns.run(work("a", 10)), turns.run(work("b", 10)))
    ticking.cancel()
    assert list(answers) == ["a", "b"]
    # A turn is one step here, and the two take turns.
    assert "".join(seen).count("ab") >= 8
    assert ticks >= 20
