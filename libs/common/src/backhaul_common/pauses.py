"""How long whoever failed waits before each next try."""

from __future__ import annotations

import random
from collections.abc import Iterator


def pauses(first_s: float = 0.1, longest_s: float = 5.0) -> Iterator[float]:
    """Seconds to wait before each next try: each twice the one before, up to ``longest_s``, spread by a fifth so that
    copies that failed together do not come back together."""
    pause_s = min(first_s, longest_s)
    while True:
        yield pause_s * random.uniform(0.8, 1.2)  # noqa: S311  # jitter, not a secret
        pause_s = min(pause_s * 2, longest_s)
