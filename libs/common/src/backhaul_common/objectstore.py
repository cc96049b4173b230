"""What S3 services have in common, without any client of theirs."""

from __future__ import annotations

from urllib.parse import urlsplit

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")
_ELSEWHERE = "us-east-1"
"""What S3 services that are not Amazon's call their region, unless they were told another name."""


def signing_region(endpoint: str, region: str = "") -> str:
    """The region that requests to ``endpoint`` (a URL) are signed for, where ``region`` is what was set.

    Empty where the host is Amazon's, which names it itself.
    """
    host = urlsplit(endpoint).hostname or ""
    return region or ("" if host.endswith(_AMAZON) else _ELSEWHERE)
