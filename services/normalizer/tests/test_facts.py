"""What of a callback's URL is the sender's."""

from __future__ import annotations

import pytest
from backhaul_channels import load_adapters
from backhaul_normalizer.facts import custom_parameters

URL = "https://callbacks.example.com/in/t/api/postevents"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", []),
        ("?channelLabel=Twilio", []),
        ("?CHANNELLABEL=Twilio&b=2&a=1&b=&b=2", [("b", "2"), ("a", "1"), ("b", ""), ("b", "2")]),
        ("?offerId=x%20y&bodySHA256=0a1b", [("offerId", "x y")]),
        ("?BODYsha256=0a1b&xbodySHA256=1&body%53HA256=2", [("xbodySHA256", "1")]),
    ],
)
def test_parameters_of_gateway_and_provider_are_no_custom_ones(query: str, expected: list[tuple[str, str]]) -> None:
    assert custom_parameters(URL + query, load_adapters()["twilio"].own_parameters) == expected


def test_a_parameter_is_only_its_own_providers() -> None:
    assert custom_parameters(f"{URL}?bodySHA256=0a1b", load_adapters()["sendgrid"].own_parameters) == [
        ("bodySHA256", "0a1b")
    ]
