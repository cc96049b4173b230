"""What the service of suppression answers as errors, as the client's callers get them; and the files of TLS."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from backhaul_client import (
    BackhaulError,
    ProblemError,
    Retries,
    TooLargeError,
    UnexpectedAnswerError,
    UnreachableError,
)
from backhaul_client.suppression import (
    SuppressionClient,
    Tls,
)
from backhaul_common import errors as served
from backhaul_common.rpc.errors import DETAILS_KEY
from backhaul_testing.proxy import End, Proxy
from stand_in import FREE, TOKEN


class Failed(grpc.aio.AioRpcError):
    """What gRPC raises."""

    def __init__(self, status: grpc.StatusCode, text: str = "", details: bytes = b"") -> None:
        trailing = grpc.aio.Metadata((DETAILS_KEY, details)) if details else grpc.aio.Metadata()
        super().__init__(status, grpc.aio.Metadata(), trailing, details=text)


@pytest.mark.parametrize("code", served.Code)
def test_each_code_of_the_service_is_an_error_of_this_library(code: served.Code) -> None:
    from backhaul_client.suppression.errors import error_of
    from backhaul_common.rpc.errors import to_details

    violations = [served.Violation("a", "Wrong.", "Mend."), served.Violation("b", "Wrong too.")]
    sent = served.BackhaulError(code, "Words.", violations=violations, retry_after_s=1.5)
    error = error_of(Failed(sent.meaning.grpc_status, "Words.", to_details(sent)), "Check")
    assert isinstance(error, ProblemError)
    assert type(error) is ProblemError.codes[code.value]
    assert (error.status, error.code, error.detail) == (sent.meaning.http_status, code.value, "Words.")
    assert [(one.field, one.message, one.fix) for one in error.errors] == [
        ("a", "Wrong.", "Mend."),
        ("b", "Wrong too.", ""),
    ]
    assert error.retry_after_s == 1.5
    if sent.meaning.grpc_status not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        assert type(error_of(Failed(sent.meaning.grpc_status, "Words.", b"\xff"), "Check")) is type(error)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, "", UnexpectedAnswerError),
        (grpc.StatusCode.UNKNOWN, "", UnexpectedAnswerError),
        (grpc.StatusCode.CANCELLED, "", UnreachableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)", TooLargeError),
    ],
)
def test_a_status_without_details_means_what_it_can(
    status: grpc.StatusCode, text: str, kind: type[BackhaulError]
) -> None:
    from backhaul_client.suppression.errors import error_of

    assert type(error_of(Failed(status, text), "Check")) is kind


async def test_who_comes_without_tls_is_told_of_it() -> None:
    """Such a service reads no greeting that it knows, and closes the connection."""

    class HangsUp(Proxy):
        async def join(self, client: End) -> None:
            """See Proxy."""

    async with (
        HangsUp(0) as service,
        SuppressionClient(f"127.0.0.1:{service.port}", token=TOKEN, retries=Retries(tries=1)) as suppression,
    ):
        with pytest.raises(UnreachableError, match=r"pass tls=Tls"):
            await suppression.get("acme", FREE)


def test_the_files_of_tls_may_be_given_as_texts(tmp_path: Path) -> None:
    for name in ("ca.pem", "own.pem", "own.key"):
        (tmp_path / name).write_text("Read when a connection is made.")
    own = Tls(ca_file=f"{tmp_path}/ca.pem", cert_file=f"{tmp_path}/own.pem", key_file=f"{tmp_path}/own.key")
    assert isinstance(own.credentials(), grpc.ChannelCredentials)
