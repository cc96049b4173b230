"""How refusals of services name what stands in a request: as the request has it, and not as the contract does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from backhaul_common.errors import BackhaulError, Code, Violation

from backhaul_gateway.web.problems import NotInstalledError


@contextmanager
def renamed(
    names: Mapping[str, str],
    *,
    within: str = "",
    texts: Mapping[str, str] = MappingProxyType({}),
    unanswered: str = "",
) -> Iterator[None]:
    """Around a call: the fields of the contract that are in ``names`` are called so, and of others the message
    ``within`` which they stand is left out, such as ``settings.``. ``texts`` are what to say in place of words of the
    contract. ``unanswered`` tells the caller what it means that nobody can answer."""

    def worded(text: str) -> str:
        for word, said in texts.items():
            text = text.replace(word, said)
        return _TIMES.sub(r"\1", text)

    try:
        yield
    except NotInstalledError:
        raise  # No word of it is the contract's.
    except BackhaulError as exc:
        if unanswered and exc.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
            raise BackhaulError(exc.code, exc.message, fix=unanswered, retry_after_s=exc.retry_after_s) from exc
        told = [
            Violation(names.get(one.field) or one.field.removeprefix(within), worded(one.message), worded(one.fix))
            for one in exc.violations
        ]
        raise BackhaulError(exc.code, worded(exc.message), retry_after_s=exc.retry_after_s, violations=told) from exc


_TIMES = re.compile(r"\b((?:\w+_)?at)_us\b")
"""Times of the contract, which are numbers there."""
