"""Replays the cases' bodies, and what fuzzing found or once failed by: ``make fuzz`` adds to it."""

from __future__ import annotations

from typing import Any

from backhaul_channels import Adapter
from conformance_cases import each_adapter
from fuzz_target import Target
from hypothesis import given
from hypothesis import strategies as st


@each_adapter
def test_the_corpus_holds(adapter: Adapter[Any]) -> None:
    target = Target(adapter)
    for body in target.seeds():
        target.check(body)


@each_adapter
@given(body=st.binary())
def test_any_bytes_hold(adapter: Adapter[Any], body: bytes) -> None:
    Target(adapter).check(body)
