"""What goes wrong, as one line that says what and what to do, and the exit code that stands for it."""

from __future__ import annotations

import sys
from enum import IntEnum

from backhaul_cli.texts import plain


class Code(IntEnum):
    """What a command ends with. They are documented, so they only grow."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CREDENTIAL = 3
    NOT_FOUND = 4
    REFUSED = 5
    AGAIN = 6
    NO = 7
    INTERRUPTED = 130


MEANINGS: dict[Code, str] = {
    Code.DONE: "done; whoever read the output may have stopped reading, and `tail`, `listen` or `suppressions watch` "
    "was stopped by Ctrl-C",
    Code.FAILED: "something unexpected happened",
    Code.USAGE: "the command, its options, a profile or a file is not right",
    Code.CREDENTIAL: "the key or token is missing, wrong, or does not open this",
    Code.NOT_FOUND: "there is no such thing, or not yet",
    Code.REFUSED: "it was refused: a value is not valid, or the state does not allow it",
    Code.AGAIN: "no answer, or not now: the same command may succeed later",
    Code.NO: "there is an answer, and it is no: not to be contacted, in error, stopped, changed files, a sample of "
    "which nothing becomes, or a measurement in which not all was taken and told",
    Code.INTERRUPTED: "stopped by Ctrl-C",
}


class FailedError(Exception):
    """A command cannot go on. ``what`` went wrong, and the ``fix``, each a sentence."""

    def __init__(self, what: str, fix: str = "", *, code: Code = Code.USAGE) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.code = code


def explained(exc: BaseException) -> tuple[str, Code]:
    """One line about ``exc``, without what could change the terminal, and the exit code."""
    failed = exc if isinstance(exc, FailedError) else _known(exc)
    return plain(" ".join(part for part in (failed.what, failed.fix) if part)), failed.code


def _known(exc: BaseException) -> FailedError:
    client = sys.modules.get("backhaul_client.errors")
    if client is not None and isinstance(exc, client.BackhaulError):
        return _of_client(exc)
    if isinstance(exc, OSError):
        named = f"{exc.filename}: " if exc.filename else ""
        return FailedError(f"{named}{exc.strerror or exc}.")
    if isinstance(exc, ValueError):
        return FailedError(str(exc))
    return FailedError(
        f"Unexpected: {type(exc).__name__}: {exc}.",
        "This is a defect of the command line: report it.",
        code=Code.FAILED,
    )


def _of_client(exc: BaseException) -> FailedError:
    from backhaul_client import errors

    match exc:
        case errors.UnreachableError():
            return FailedError(
                f"No answer: {exc}.",
                "Check the address (backhaul profile list), and that it is running.",
                code=Code.AGAIN,
            )
        case errors.UnexpectedAnswerError():
            return FailedError(
                f"This is no answer of Backhaul: {exc}.",
                "Check the address (backhaul profile list): something else may listen there.",
                code=Code.FAILED,
            )
        case errors.ProblemError():
            return FailedError(_said(exc), _to_do(exc), code=_code(exc))
    return FailedError(f"{exc}", code=Code.FAILED)


def _said(exc: object) -> str:
    from backhaul_client import errors

    assert isinstance(exc, errors.ProblemError)  # noqa: S101  # for the type checker alone
    parts = [exc.detail or f"Status {exc.status}."]
    for error in exc.errors:
        said = f"{error.field}: {error.message}" if error.field else error.message
        parts.append(
            " ".join(part for part in (said if error.message != exc.detail else error.field, error.fix) if part)
        )
    return " ".join(parts)


def _to_do(exc: object) -> str:
    from backhaul_client import errors

    match exc:
        case errors.UnauthenticatedError():
            return "Check the key of the profile: backhaul profile add asks for it anew."
        case errors.ForbiddenError():
            return "The key needs another scope, or the tenant is suspended: backhaul keys list shows scopes."
        case errors.RateLimitedError() | errors.UnavailableError() | errors.DeadlineExceededError():
            wait = f" in {exc.retry_after_s:g} s" if exc.retry_after_s else ""
            return f"Try again{wait}."
        case errors.InternalError():
            return f"Tell the platform team the trace: {exc.trace_id}."
    return ""


def _code(exc: object) -> Code:
    from backhaul_client import errors

    match exc:
        case errors.UnauthenticatedError() | errors.ForbiddenError():
            return Code.CREDENTIAL
        case errors.NotFoundError():
            return Code.NOT_FOUND
        case errors.RateLimitedError() | errors.UnavailableError() | errors.DeadlineExceededError():
            return Code.AGAIN
        case (
            errors.InvalidArgumentError()
            | errors.ConflictError()
            | errors.FailedPreconditionError()
            | errors.TooLargeError()
        ):
            return Code.REFUSED
    return Code.FAILED
