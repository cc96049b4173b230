"""The log of changes of a request that changes many things: each has an entry of its own, under the request's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated

from backhaul_common.documents import Document
from backhaul_common.errors import BackhaulError
from fastapi import Depends, Request

from backhaul_gateway.admission.entries import NOTED, Noted, Part
from backhaul_gateway.admission.logged import PARTS, Logged
from backhaul_gateway.web.changes import CHANGE, Change
from backhaul_gateway.web.problems import of_error

_DONE, _FAILED = 200, 500


@dataclass(slots=True)
class _Shown:
    """What the log shows of one part."""

    part: Part
    logged: Logged
    tenant_id: str
    noted: Noted = field(init=False)

    def __post_init__(self) -> None:
        self.noted = Noted(self.logged.stored)

    @property
    def target(self) -> dict[str, str]:
        return {"tenant_id": self.tenant_id, **self.part.target}

    @property
    def before(self) -> Document | None:
        return self.logged.asked(self.part.before) if self.part.before is not None else None

    def asked(self) -> Document | None:
        return self.logged.asked(self.part.given)


class RequestParts:
    """``Parts`` of one request."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._registrations: dict[str, str] = {}

    @asynccontextmanager
    async def changing(self, kind: str, tenant_id: str, part: Part) -> AsyncIterator[Part]:
        """See ``Parts``."""
        log, shown = self._change.log, _Shown(part, PARTS[kind], tenant_id)
        begun = log.begun(self._change, shown, self._change.id)
        # Of a tenant that this request has made, the gateway may not have heard yet.
        begun = replace(begun, registration=self._registrations.get(tenant_id, begun.registration))
        await log.store.begin(begun)
        token = NOTED.set(shown.noted)
        try:
            yield part
        except BackhaulError as exc:
            await log.complete(shown, begun, of_error(exc)[0])
            raise
        except Exception:
            await log.complete(shown, begun, _FAILED)
            raise
        else:
            await log.complete(shown, begun, _DONE)
        finally:
            NOTED.reset(token)
            if shown.noted.after is not None:
                self._registrations[tenant_id] = shown.noted.after.registration


async def _parts(request: Request) -> RequestParts:
    return RequestParts(request.scope[CHANGE])


PartsOf = Annotated[RequestParts, Depends(_parts)]
"""The entries of what a request changes, on a route that is logged."""
