"""How long whoever failed waits before each next try.

``until_done`` and ``keep_running`` of ``lifecycle`` go by it, and whatever else tries again. A library for retries
(stamina) would log every try, by hooks that are the whole process's: here an outage of an hour is one line a minute.
"""

from __future__ import annotations

import random
from collections.abc import Iterator


def pauses(first_s: float = 0.1, longest_s: float = 5.0, *, spread: float = 0.2) -> Iterator[float]:
    """Seconds to wait before each next try: each twice the one before, up to ``longest_s``.

    Each is longer or shorter by up to ``spread`` of it, so that copies that failed together do not come back together.
    """
    pause_s = min(first_s, longest_s)
    while True:
        yield pause_s * random.uniform(1 - spread, 1 + spread)  # noqa: S311  # jitter, not a secret
        pause_s = min(pause_s * 2, longest_s)
