"""What tenants tell of communications and batches: JSON bodies, and how refusals name what stands in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Annotated, Literal

from backhaul_common.errors import BackhaulError, Code, Violation
from backhaul_common.names import channel_key
from backhaul_proto.event.v1.event_pb2 import Attribute
from backhaul_proto.normalizer.v1 import communications_pb2 as pb
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from backhaul_gateway.admission.refusals import NOT_UTF_8
from backhaul_gateway.reads.communicationviews import COMPLETES_ON
from backhaul_gateway.twins.renaming import renamed
from backhaul_gateway.web.filters import Text, microseconds
from backhaul_gateway.web.moments import AwareMoment

_MIN_DEADLINE_HOURS = 1 / 60
_MAX_DEADLINE_HOURS = 90 * 24
_MAX_EXPECTED = 2**53
"""Integers that every JSON parser takes."""


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CommunicationIn(_Input):
    """What a communication is. All of it: what is left out is as its default says."""

    name: Text = ""
    mode: Text = Field("", description="Which of its environments holds.", examples=["live"])
    channel: Text = Field("", description="Of destinations that name none.", examples=["Twilio"])
    notify: list[Text] = Field([], description="Mail addresses of those who are told what befalls it.")
    deadline_hours: Annotated[
        float, Field(strict=True, ge=_MIN_DEADLINE_HOURS, le=_MAX_DEADLINE_HOURS, allow_inf_nan=False)
    ] = Field(72, description="From a batch's registration to its deadline; a minute to 90 days.")
    completes_on: Literal["processed", "final"] = Field(
        "processed",
        description="When a closed batch is complete: when each destination was sent or failed, or when each has a "
        "message in a state other than Queued and Sent.",
    )
    environments: dict[Text, dict[Text, Text]] = Field(
        {}, description="Variables by mode.", examples=[{"live": {"shop": "https://shop.example.com"}}]
    )

    def paths(self) -> dict[str, str]:
        """How the request writes what the contract numbers."""
        return {
            f"settings.environments[{number}].{part}": f"environments.{mode}" if mode else "environments"
            for number, mode in enumerate(self.environments)
            for part in ("mode", "variables")
        }

    def settings(self) -> pb.CommunicationSettings:
        """As the contract has it."""
        return pb.CommunicationSettings(
            name=self.name,
            mode=self.mode,
            channel=channel_key(self.channel),
            notify=self.notify,
            deadline_s=round(self.deadline_hours * 3600),
            completes_on=COMPLETES_ON.number(self.completes_on),
            environments=[
                pb.Environment(
                    mode=mode, variables=[Attribute(name=name, value=value) for name, value in variables.items()]
                )
                for mode, variables in self.environments.items()
            ],
        )


class SwitchIn(_Input):
    """Why it is disabled, which must be told, or enabled again; and who did it: left out, the API key that was
    shown."""

    reason: Text = Field("", examples=["Wrong shop."])
    author: Text = Field("", examples=["anna@example.com"])


class BatchIn(_Input):
    """What a batch is. All of it: what is left out is as its default says."""

    label: Text = ""
    expected_members: Annotated[int, Field(strict=True, ge=1, le=_MAX_EXPECTED)] | None = Field(
        None, description="It closes by itself when so many members are there; left out, by a call."
    )
    deadline: AwareMoment | None = Field(
        None, description="Left out, the communication's hours from now; of a batch that is there, the one that it has."
    )

    def request(self, tenant_id: str, communication_id: str, batch_id: str) -> pb.PutBatchRequest:
        """The call."""
        return pb.PutBatchRequest(
            tenant_id=tenant_id,
            communication_id=communication_id,
            batch_id=batch_id,
            label=self.label,
            expected_members=self.expected_members or 0,
            deadline_at_us=microseconds(self.deadline),
        )


def _utf_8(value: str) -> str:
    if "\ufffd" in value:
        raise ValueError(NOT_UTF_8)
    return value


NewId = Annotated[Text, AfterValidator(_utf_8)]
"""An id that is registered. Bytes of a path that are not UTF-8 all come as one character, so ids would be mixed up."""


def batches_are_elsewhere(refusal: BackhaulError, communication_id: str) -> BackhaulError:
    """``refusal``, with where a batch is found if that is what ``communication_id`` looks for."""
    if refusal.code is not Code.NOT_FOUND or "/batches/" not in communication_id:
        return refusal
    fix = "A batch is at /v1/batches/{batch_id}."
    told = [Violation(one.field, one.message, fix) for one in refusal.violations]
    return BackhaulError(Code.NOT_FOUND, refusal.message, violations=told)


SAY_AGAIN = "It may have been done, or not. Send it again: done twice, it changes nothing more."
"""What it means that a change got no answer."""


@contextmanager
def in_words_of_http(*, unanswered: str = "", paths: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """Around a call: what it refuses is named as the request has it, by the ``paths`` of this one too. ``unanswered``
    is told where nobody answers."""
    with renamed({**_RENAMED, **paths}, within="settings.", texts=_TEXTS, unanswered=unanswered):
        yield


_RENAMED = {
    "settings.deadline_s": "deadline_hours",
    "deadline_at_us": "deadline",
    "format": "Content-Type",
    "data": "body",
    "page_token": "cursor",
    "page_size": "limit",
    "from_us": "from",
    "to_us": "to",
}
"""The fields of the contract that have other names in requests."""

_TEXTS = {
    "PutCommunication": "PUT /v1/communications/{id}",
    "PutBatch": "PUT /v1/communications/{id}/batches/{batch_id}",
    "unix time in microseconds, or 0 for": "RFC 3339, or leave it out for",
}
"""What the normalizer tells callers of the contract to do, as callers of REST do it."""
