"""A typed client of suppression for internal services, over gRPC: may we contact this person?

It needs the extra ``backhaul-client[suppression]``. See the README for an example.
"""

try:
    import grpc as _grpc  # noqa: F401  # asked for by itself, so that its absence can be explained
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        f"{exc.msg}: backhaul_client.suppression needs pip install 'backhaul-client[suppression]'.", name=exc.name
    ) from exc

from backhaul_client.suppression.blocking import BlockingSuppressionClient, BlockingWatch
from backhaul_client.suppression.checks import IfUnavailable
from backhaul_client.suppression.client import SuppressionClient
from backhaul_client.suppression.connection import Tls
from backhaul_client.suppression.errors import SuppressedError, SuppressionUnavailableError
from backhaul_client.suppression.models import (
    ANYTHING,
    EVERYTHING,
    Actor,
    Answer,
    Blocking,
    Change,
    Evidence,
    Fact,
    Family,
    FileFormat,
    Item,
    Kind,
    Origin,
    Outcome,
    Progress,
    Purpose,
    Record,
    Scope,
    ScopeKind,
    Sending,
    Source,
    Standing,
    Suppression,
    Verdict,
)
from backhaul_client.suppression.watching import Watch

__all__ = [
    "ANYTHING",
    "EVERYTHING",
    "Actor",
    "Answer",
    "Blocking",
    "BlockingSuppressionClient",
    "BlockingWatch",
    "Change",
    "Evidence",
    "Fact",
    "Family",
    "FileFormat",
    "IfUnavailable",
    "Item",
    "Kind",
    "Origin",
    "Outcome",
    "Progress",
    "Purpose",
    "Record",
    "Scope",
    "ScopeKind",
    "Sending",
    "Source",
    "Standing",
    "SuppressedError",
    "Suppression",
    "SuppressionClient",
    "SuppressionUnavailableError",
    "Tls",
    "Verdict",
    "Watch",
]
