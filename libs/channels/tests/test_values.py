"""Single values of a provider's, as an event keeps them."""

from __future__ import annotations

import pytest
from backhaul_channels import MalformedError
from backhaul_channels.values import MAX_ID, MAX_WORD, bounded, id_of, text_of, word_of


@pytest.mark.parametrize(
    ("value", "text"),
    [("a b", "a b"), ("", ""), (0, "0"), (1.5, "1.5"), (True, "true"), (None, ""), (["a"], ""), ({"a": "b"}, "")],
)
def test_a_scalar_is_a_text_and_everything_else_is_none(value: object, text: str) -> None:
    assert text_of(value) == text
    assert bounded(value) == text


def test_a_value_is_cut() -> None:
    assert bounded("abc", 2) == "ab"
    assert bounded(12345, 2) == "12"


def test_an_id_is_never_cut() -> None:
    assert id_of(f"  {'x' * MAX_ID} ", "id") == "x" * MAX_ID
    assert id_of(None, "id") == ""
    with pytest.raises(MalformedError, match=f"^id is longer than {MAX_ID} characters"):
        id_of("x" * (MAX_ID + 1), "id")


def test_a_word_is_in_lower_case_and_never_cut() -> None:
    assert word_of(" DELIVERED\n", "status") == "delivered"
    assert word_of(["DELIVERED"], "status") == ""
    assert word_of("X" * MAX_WORD, "status") == "x" * MAX_WORD
    with pytest.raises(MalformedError, match=f"^status is longer than {MAX_WORD} characters"):
        word_of("X" * (MAX_WORD + 1), "status")
