"""Whatever goes wrong is one line with something to do, and an exit code of its kind."""

from __future__ import annotations

import pytest
from backhaul_cli.failing import MEANINGS, Code, FailedError, explained
from backhaul_client import errors


def _every(kind: type[errors.BackhaulError]) -> list[type[errors.BackhaulError]]:
    return [kind, *(deeper for below in kind.__subclasses__() for deeper in _every(below))]


def _made(kind: type[errors.BackhaulError]) -> errors.BackhaulError:
    if issubclass(kind, errors.ProblemError):
        return kind(status=400, code="x", detail="It went\x1b[2J\nwrong.", trace_id="0123")
    return kind("GET /v1/x:\x1b]0;x\x07\nwrong")


# What another test's imports bring beside, of gRPC, is raised to no command.
KINDS = [kind for kind in _every(errors.BackhaulError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_of_the_client_is_one_line(kind: type[errors.BackhaulError]) -> None:
    text, code = explained(_made(kind))
    assert "wrong" in text
    assert text.isprintable()
    assert code in MEANINGS
    assert code not in (Code.DONE, Code.USAGE, Code.NO)


def test_kinds_have_codes_of_their_own() -> None:
    codes = {
        errors.UnauthenticatedError: 3,
        errors.ForbiddenError: 3,
        errors.NotFoundError: 4,
        errors.InvalidArgumentError: 5,
        errors.ConflictError: 5,
        errors.FailedPreconditionError: 5,
        errors.UnavailableError: 6,
        errors.RateLimitedError: 6,
        errors.UnreachableError: 6,
        errors.UnexpectedAnswerError: 1,
    }
    assert {kind: explained(_made(kind))[1] for kind in codes} == codes


def test_each_field_is_named_with_its_fix() -> None:
    fields = (
        errors.FieldError("from", "It is in the future.", "Say an earlier time."),
        errors.FieldError("to", "Bad.", ""),
    )
    refused = errors.InvalidArgumentError(status=400, code="invalid_argument", detail="Two are wrong.", errors=fields)
    assert explained(refused)[0] == "Two are wrong. from: It is in the future. Say an earlier time. to: Bad."
    alone = errors.InvalidArgumentError(
        status=400, code="x", detail="It is bad.", errors=(errors.FieldError("from", "It is bad.", "Mend it."),)
    )
    assert explained(alone)[0] == "It is bad. from Mend it."


@pytest.mark.parametrize(
    ("exc", "said", "code"),
    [
        (FailedError("This.", "Do that."), "This. Do that.", Code.USAGE),
        (FileNotFoundError(2, "No such file or directory", "a\nb"), "a\\nb: No such file or directory.", Code.USAGE),
        (ValueError("An id or a label is empty."), "An id or a label is empty.", Code.USAGE),
        (KeyError("x"), "Unexpected: KeyError: 'x'. This is a defect of the command line: report it.", Code.FAILED),
    ],
)
def test_what_else_goes_wrong_is_one_too(exc: Exception, said: str, code: Code) -> None:
    assert explained(exc) == (said, code)
