"""A typed client of Backhaul's HTTP API: what became of a tenant's messages, and the platform team's side."""

from backhaul_client.admin import (
    AdminClient,
    AsyncAdminClient,
    AuditRetentionIn,
    LimitsIn,
    RetentionIn,
    ServiceLimitsIn,
    SuppressionIn,
)
from backhaul_client.communications import DestinationIn, MemberIn
from backhaul_client.errors import (
    BackhaulError,
    BrokenOffError,
    ConflictError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldError,
    ForbiddenError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ProblemError,
    RateLimitedError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
)
from backhaul_client.following import Followed
from backhaul_client.own import ChannelIn
from backhaul_client.paging import AsyncRows, Page, Rows
from backhaul_client.replays import DeadLettersIn
from backhaul_client.retries import Retries
from backhaul_client.sends import ReportedSends, SendIn
from backhaul_client.suppressionmodels import CheckItem
from backhaul_client.suppressions import ConsentedIn, EvidenceIn, LiftedIn, SuppressedIn
from backhaul_client.tenant import AsyncTenantClient, TenantClient

__all__ = [
    "AdminClient",
    "AsyncAdminClient",
    "AsyncRows",
    "AsyncTenantClient",
    "AuditRetentionIn",
    "BackhaulError",
    "BrokenOffError",
    "ChannelIn",
    "CheckItem",
    "ConflictError",
    "ConsentedIn",
    "DeadLettersIn",
    "DeadlineExceededError",
    "DestinationIn",
    "EvidenceIn",
    "FailedPreconditionError",
    "FieldError",
    "Followed",
    "ForbiddenError",
    "InternalError",
    "InvalidArgumentError",
    "LiftedIn",
    "LimitsIn",
    "MemberIn",
    "NotFoundError",
    "Page",
    "ProblemError",
    "RateLimitedError",
    "ReportedSends",
    "RetentionIn",
    "Retries",
    "Rows",
    "SendIn",
    "ServiceLimitsIn",
    "SuppressedIn",
    "SuppressionIn",
    "TenantClient",
    "TooLargeError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnexpectedAnswerError",
    "UnreachableError",
]
