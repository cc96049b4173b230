"""Whether what waits for a file may soon be lost: EVENTS drops what is older than it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Lateness:
    """``keeps_us`` is for how long EVENTS keeps a message. What has waited for half of that is late: so long is left to
    mend what keeps it from being filed."""

    keeps_us: int

    @classmethod
    def of(cls, max_age_s: float) -> Lateness:
        """That of a stream with such a ``max_age``."""
        return cls(round(max_age_s * 1_000_000))

    def is_late(self, stored_us: int, now_us: int) -> bool:
        """Whether what EVENTS took then is late now; 0 stands for nothing, which never is."""
        return 0 < stored_us < now_us - self.keeps_us // 2

    def waiting(self, stored_us: int, now_us: int) -> str:
        """The sentence where a channel's first waiting event is late; empty where it is not."""
        if not self.is_late(stored_us, now_us):
            return ""
        return f"Events wait since {_text(stored_us)}. From {self._ends(stored_us)} on they are lost, one by one."

    def unread(self, read_to_us: int, now_us: int) -> str:
        """The sentence where what was read last is late; empty where it is not."""
        if not self.is_late(read_to_us, now_us):
            return ""
        return (
            f"Events that came after {_text(read_to_us)} have not been read. From {self._ends(read_to_us)} on they are "
            "lost, one by one."
        )

    def _ends(self, stored_us: int) -> str:
        return _text(stored_us + self.keeps_us)


def _text(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).isoformat().replace("+00:00", "Z")
