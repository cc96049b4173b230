"""What can go wrong with the local stack, in words that say what to do next."""

from __future__ import annotations

from pathlib import Path


class LocalStackError(Exception):
    """Base of everything that this package raises on purpose; its text is meant for the person at the terminal."""

    late = False
    """Whether a longer wait might have helped, and nothing else is wrong."""


class MissingServerError(LocalStackError):
    """The program of a server is neither installed with the package that brings it nor on PATH."""


class PortInUseError(LocalStackError):
    """At least one wanted port is taken; the text names each port, its purpose and who holds it."""


class DataInUseError(LocalStackError):
    """Another process already keeps its data in the same folder."""


class SettingError(LocalStackError):
    """A setting of the local stack cannot be used; the text names it."""


class ProcessError(LocalStackError):
    """A process is not as it should be. The text ends with the last lines of its log, where the reason stands."""

    def __init__(self, name: str, problem: str, log_path: Path, tail: str) -> None:
        shown = tail.rstrip() or "(the log is empty)"
        super().__init__(f"{name} {problem}\n--- the end of {log_path} ---\n{shown}")
        self.name = name
        self.log_path = log_path


class StartError(ProcessError):
    """A process died while starting, or was not ready in time."""


class EndedError(ProcessError):
    """A process that was ready has ended by itself."""


class LateError(StartError):
    """A process lives and was not ready in time, as on a busy machine."""

    late = True
