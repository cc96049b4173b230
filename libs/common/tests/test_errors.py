"""The catalogue, and what is understood of errors that did not come from our own edge."""

from __future__ import annotations

from collections import Counter

import grpc
import pytest
from backhaul_common.errors import CATALOGUE, BackhaulError, Code, Violation, unavailable
from backhaul_common.rpc.errors import DETAILS_KEY, MAX_TEXT_BYTES, from_rpc, name_of, to_details
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata


def rpc_error(status: grpc.StatusCode, text: str = "", details: bytes | None = None) -> AioRpcError:
    trailing = Metadata((DETAILS_KEY, details)) if details is not None else Metadata()
    return AioRpcError(status, Metadata(), trailing, details=text)


def test_the_catalogue_covers_every_code() -> None:
    assert set(CATALOGUE) == set(Code)
    assert all(meaning.title for meaning in CATALOGUE.values())


def test_each_grpc_status_means_one_code() -> None:
    counts = Counter(meaning.grpc_status for meaning in CATALOGUE.values())
    assert max(counts.values()) == 1
    assert grpc.StatusCode.OK not in counts
    # What gRPC itself says when nobody caught an exception must not be what we say on purpose.
    assert grpc.StatusCode.UNKNOWN not in counts


def test_http_statuses_agree_with_what_the_codes_mean() -> None:
    for code, meaning in CATALOGUE.items():
        assert 400 <= meaning.http_status < 600, code
        if meaning.http_status < 500:
            # A client error says that the same request cannot succeed, with the one exception that HTTP knows.
            assert meaning.retryable == (meaning.http_status == 429), code
    assert not CATALOGUE[Code.INTERNAL].retryable
    assert CATALOGUE[Code.UNAVAILABLE].http_status == 503


@pytest.mark.parametrize("code", Code)
def test_a_typed_error_survives_the_wire(code: Code) -> None:
    sent = BackhaulError(code, "Größe «1»\nline", field="limits.burst", fix="Ask for less.", retry_after_s=2.5)
    found = from_rpc(rpc_error(CATALOGUE[code].grpc_status, "x", to_details(sent)))
    assert (found.code, found.message, found.field, found.fix, found.retry_after_s) == (
        code,
        sent.message,
        sent.field,
        sent.fix,
        2.5,
    )
    assert (
        from_rpc(rpc_error(CATALOGUE[code].grpc_status, "x", to_details(BackhaulError(code, "m")))).retry_after_s
        is None
    )


@pytest.mark.parametrize("code", Code)
def test_a_bare_status_means_its_code(code: Code) -> None:
    assert from_rpc(rpc_error(CATALOGUE[code].grpc_status, "why")).code is code


@pytest.mark.parametrize(
    "status",
    [grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INTERNAL],
)
def test_what_is_unexpected_is_internal_and_says_nothing(status: grpc.StatusCode) -> None:
    found = from_rpc(rpc_error(status, "secret detail"))
    assert found.code is Code.INTERNAL
    assert "secret" not in str(found)


def test_a_cancelled_call_may_be_tried_again() -> None:
    found = from_rpc(rpc_error(grpc.StatusCode.CANCELLED, "shutting down"))
    assert found.code is Code.UNAVAILABLE
    assert found.retry_after_s is not None


def test_what_an_older_copy_does_not_offer_may_be_tried_again() -> None:
    found = from_rpc(rpc_error(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"), "Normalizer")
    assert found.code is Code.UNAVAILABLE
    assert found.message == "Normalizer is of a version that does not offer this."
    assert "updated" in found.violations[0].fix
    assert found.retry_after_s == 5


def test_what_is_away_is_named_by_its_contract() -> None:
    method = "/backhaul_proto.suppression.v1.SuppressionService/Check"
    found = from_rpc(rpc_error(grpc.StatusCode.UNAVAILABLE, "failed to connect to 10.0.0.1"), name_of(method))
    assert found.message == "Suppression is away."
    slow = from_rpc(rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), name_of(method))
    assert slow.message == "Suppression did not answer in time."
    assert name_of("nonsense") == "A service"


def _foreign_details(domain: str, **metadata: str) -> bytes:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="not_found", domain=domain, metadata=metadata))
    serialized: bytes = status_pb2.Status(code=5, message="theirs", details=[detail]).SerializeToString()
    return serialized


@pytest.mark.parametrize(
    "details",
    [
        b"",
        b"\xff\xff\xff no protobuf",
        _foreign_details("googleapis.com"),
        _foreign_details("backhaul", retry_after_s="soon"),
        status_pb2.Status(
            details=[any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")]
        ).SerializeToString(),
    ],
)
def test_foreign_or_broken_details_leave_the_status(details: bytes) -> None:
    found = from_rpc(rpc_error(grpc.StatusCode.NOT_FOUND, "no such row", details))
    assert found.code is Code.NOT_FOUND
    assert found.message == "no such row"


def test_details_are_bounded_and_encodable() -> None:
    """A message that quotes its input must still cross: gRPC drops answers whose metadata is too long."""
    error = BackhaulError(Code.INVALID_ARGUMENT, "x" * 50_000 + "\ud800", field="é" * 9000, fix="\ud800")
    details = to_details(error)
    assert len(details) < 6000
    found = from_rpc(rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "", details))
    assert len(found.message.encode()) == MAX_TEXT_BYTES
    assert found.message.endswith("…")
    assert found.fix == "?"


def test_every_field_at_fault_crosses() -> None:
    wrong = [Violation("rows[0]", "It is empty.", "Fill it."), Violation("rows[3].to", "It is no address.")]
    error = BackhaulError(Code.INVALID_ARGUMENT, "Two rows are wrong.", violations=wrong)
    assert (error.field, error.fix) == ("rows[0]", "Fill it.")
    found = from_rpc(rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "", to_details(error)))
    assert (found.message, found.violations) == ("Two rows are wrong.", tuple(wrong))


def test_of_very_many_fields_at_fault_the_first_cross() -> None:
    wrong = [Violation(f"rows[{number}].address", "It is none. 𝄞" * 9, "Send E.164.") for number in range(10_000)]
    error = BackhaulError(Code.INVALID_ARGUMENT, "𝄞" * 10_000, violations=wrong)
    details = to_details(error)
    # In the metadata a byte of the details takes four thirds, and one of the status's own message up to three.
    assert len(details) * 4 / 3 + 3 * MAX_TEXT_BYTES < 8 << 10
    found = from_rpc(rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "", details))
    assert 5 < len(found.violations) < 100
    assert found.violations == tuple(wrong[: len(found.violations)])


def test_any_other_client_reads_the_fields_at_fault() -> None:
    error = BackhaulError(Code.INVALID_ARGUMENT, "No.", field="limit", fix="Ask for less.")
    bad_request = error_details_pb2.BadRequest()
    details = status_pb2.Status.FromString(to_details(error)).details
    assert [detail.Unpack(bad_request) for detail in details] == [False, True]
    assert [(one.field, one.description) for one in bad_request.field_violations] == [("limit", "No.")]


def test_text_and_meaning() -> None:
    error = BackhaulError(Code.CONFLICT, "It is taken.", field="queue_path", fix="Choose another.")
    assert str(error) == "conflict: queue_path: It is taken. Choose another."
    assert error.meaning.http_status == 409
    assert unavailable("NATS").meaning.retryable
    assert str(unavailable("NATS")).startswith("unavailable: NATS")
