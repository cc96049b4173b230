"""What is a mail address, and what could break out of a header."""

from __future__ import annotations

import pytest
from backhaul_common.mailaddresses import is_mail_address


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.com",
        "ann.lee+x=1@mail-2.example.co.uk",
        "!#$%&'*/?^_`{|}~-@xn--exmple-cua.de",
        "a" * 64 + "@example.com",
        "a@" + "b" * 63 + ".com",
    ],
)
def test_addresses(address: str) -> None:
    assert is_mail_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ann",
        "@example.com",
        "ann@",
        "ann@example",
        "ann@.com",
        "ann@example.com.",
        "ann@example..com",
        "ann@-example.com",
        "ann@example-.com",
        "ann@exa_mple.com",
        "ann@[127.0.0.1]",
        "a@b@example.com",
        ".ann@example.com",
        "ann.@example.com",
        "an..n@example.com",
        " ann@example.com",
        "ann@example.com\n",
        "ann@example.com\r\nBcc: x@evil.example",
        "ann@example.com, ben@example.com",
        "Ann <ann@example.com>",
        '"a b"@example.com',
        "=?utf-8?q?a=0D=0ABcc:x?=@example.com",
        "änn@example.com",
        "ann@exämple.de",
        "a" * 65 + "@example.com",
        "a@" + "b" * 64 + ".com",
        "a@" + ".".join(["b" * 61] * 4) + ".example",
    ],
)
def test_others(address: str) -> None:
    assert not is_mail_address(address)


def test_a_domain_without_a_dot_is_one_only_of_this_machine() -> None:
    assert is_mail_address("backhaul@localhost", dotted=False)
    assert not is_mail_address("backhaul@", dotted=False)
