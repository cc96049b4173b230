"""The names of fields that a webhook of no known provider may have. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backhaul_channels.engines.mapped import names

# Standard Webhooks call an event's kind its type, https://www.standardwebhooks.com.
NAMES: Final[Mapping[str, str]] = {**names.USUAL_NAMES, "type": "status"}
