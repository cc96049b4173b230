"""Which region requests are signed for."""

from __future__ import annotations

import pytest
from backhaul_common.objectstore import signing_region


@pytest.mark.parametrize(
    ("endpoint", "region", "signed_for"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "", ""),
        ("https://s3.cn-north-1.amazonaws.com.cn/", "", ""),
        ("https://s3.amazonaws.com", "eu-west-1", "eu-west-1"),
        ("http://127.0.0.1:8333", "", "us-east-1"),
        ("https://s3.amazonaws.com.example.com", "", "us-east-1"),
        ("https://fsn1.example.com", "fsn1", "fsn1"),
    ],
)
def test_the_region(endpoint: str, region: str, signed_for: str) -> None:
    assert signing_region(endpoint, region) == signed_for
