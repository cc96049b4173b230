"""Keys, or none: credentials that the machine, or whoever orchestrates it, vouches for.

``minio``'s providers fetch those, keep them and fetch them again before they end. What they raise may name the token
that they showed, so nothing of it is passed on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from backhaul_common.errors import BackhaulError, Code
from minio.credentials.credentials import Credentials
from minio.credentials.providers import IamAwsProvider, Provider, StaticProvider, WebIdentityProvider

from backhaul_audit.objects.http import Pool
from backhaul_audit.objects.place import Place

_TOKEN_FILE = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105  # The name of a variable, no secret.


def provider(place: Place, pool: Pool) -> Provider:
    """What says by which credentials ``place`` is reached. Its ``retrieve`` may ask over the network, and raises
    FAILED_PRECONDITION in words."""
    if place.credentials == "keys":
        return StaticProvider(place.access_key, place.secret_key)
    if place.credentials == "web_identity":
        return _Worded(_web_identity(place, pool), "The cloud gives no credentials for this workload's identity.")
    return _Worded(IamAwsProvider(http_client=pool), "The cloud gives no credentials for this machine's role.")


class _Worded(Provider):
    def __init__(self, inner: Provider | None, problem: str) -> None:
        self._inner = inner
        self._problem = problem

    def retrieve(self) -> Credentials:
        if self._inner is None:
            fix = f"Give the audit service a service account's token: {_TOKEN_FILE} and AWS_ROLE_ARN name none."
            raise BackhaulError(Code.FAILED_PRECONDITION, self._problem, fix=fix)
        try:
            return self._inner.retrieve()
        except Exception:  # noqa: BLE001  # Whatever it stumbles over may name the token, or what it answered.
            fix = "Look whether a role is attached to it, and whether it trusts this workload."
            raise BackhaulError(Code.FAILED_PRECONDITION, self._problem, fix=fix) from None


def _web_identity(place: Place, pool: Pool) -> Provider | None:
    file = os.environ.get(_TOKEN_FILE)
    if not file:
        return None
    # The token is shown to Amazon or to whom the environment names, never to an endpoint that is a channel's setting.
    region = place.region or os.environ.get("AWS_REGION", "")
    amazon = f"https://sts.{region}.amazonaws.com" if region else "https://sts.amazonaws.com"
    return WebIdentityProvider(
        jwt_provider_func=lambda: cast(dict[str, str], {"access_token": Path(file).read_text("utf-8").strip()}),
        sts_endpoint=os.environ.get("AWS_ENDPOINT_URL_STS") or amazon + (".cn" if region.startswith("cn-") else ""),
        role_arn=os.environ.get("AWS_ROLE_ARN"),
        role_session_name=os.environ.get("AWS_ROLE_SESSION_NAME") or "backhaul",
        http_client=pool,
    )
