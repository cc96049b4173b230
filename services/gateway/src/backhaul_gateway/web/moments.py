"""Times as programs and people write them. Pydantic by itself takes any number, also one in a text, for seconds since
1970: ``?from=2026`` would ask for all that there is."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator

from backhaul_gateway.admission.refusals import NO_TIME

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def _written(value: Any) -> Any:  # whatever was sent
    if isinstance(value, int | float) or (isinstance(value, str) and not _DATE.match(value)):
        raise ValueError(NO_TIME)
    return value


Moment = Annotated[datetime, BeforeValidator(_written)]
AwareMoment = Annotated[AwareDatetime, BeforeValidator(_written)]
