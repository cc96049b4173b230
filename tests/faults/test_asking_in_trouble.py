"""Whatever Twilio's API does wrong, it is asked within its budget, told of in words, and asked on when it is over."""

from __future__ import annotations

import random
from typing import Any, get_args

import pytest
from backhaul_testing.apis.faults import Name
from backhaul_testing.waiting import until
from faults.truth import AT_ONCE, Asking, Story, processed, settle, unlike

Json = dict[str, Any]

pytestmark = pytest.mark.faults

# What takes the reconciler its own deadlines to notice is tried in its own tests.
FAULTS = sorted({*get_args(Name)} - {"slow", "endless", "late"})


async def _standing(story: Story, *wanted: str) -> Any:
    """How it stands with the channel, once that is one of ``wanted``."""

    async def probe() -> Any:
        (row,) = [one for one in await story.client.channels() if one.channel == "twilio"]
        return row if row.standing in wanted else None

    return await until(f"a standing of {wanted}", probe, within_s=40, pause_s=0.2)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(3))
async def test_no_misbehaviour_has_it_asked_for_too_much(asking: Asking, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311  # misbehaviour that can be repeated, no secret
    chosen = dice.sample(FAULTS, 4)
    for name in chosen:
        asking.api.misbehave(name, share=dice.uniform(0.05, 0.4), times=6, status=dice.choice((500, 502, 503)))
    story = await asking.story(seed=seed, withheld=0.3, shuffled=True)
    await story.send(150, stops=3, silent_stops=2)
    await story.post()
    await processed(asking.stack)
    asking.api.behave()
    report = await story.ask()
    await processed(asking.stack)
    assert report.state == "done", (chosen, report)
    assert not await unlike(story)
    await settle(asking.stack, story)
    assert asking.api.requests.most_in_flight(story.account.sid) <= AT_ONCE
    await asking.leave_alone(story)


@pytest.mark.parametrize(
    ("fault", "how", "standing", "said"),
    [
        ("errors", {"status": 503}, "waiting", "cannot answer now (status 503)"),
        ("too_many_requests", {}, "waiting", "cannot answer now (status 429)"),
        ("circular", {}, "failing", "next page that was read before"),
        ("truncated", {}, "failing", "cannot be read"),
    ],
)
@pytest.mark.timeout(180)
async def test_what_is_wrong_is_said(
    asking: Asking, fault: Name, how: dict[str, Any], standing: str, said: str
) -> None:
    asking.api.misbehave(fault, route="messages", **how)
    story = await asking.story(api_asked=False)
    await story.send(1_001 if fault == "circular" else 1)
    await asking.have_asked(story)
    row = await _standing(story, standing)
    assert said in row.text
    assert story.account.auth_token not in row.text
    # It is not asked again and again: what was wrong is left alone for a while.
    assert asking.api.requests.count(key=story.account.sid) <= 10
    await asking.leave_alone(story)


async def test_credentials_that_are_refused_are_asked_with_again_once_they_are_others(asking: Asking) -> None:
    story = await asking.story(api_asked=False)
    await story.send(3)
    right = story.account.auth_token
    story.account.auth_token = "0" * 32
    await asking.have_asked(story, token=right)
    row = await _standing(story, "credentials_refused")
    assert "refuses the credentials" in row.text
    assert right not in row.text
    asked = asking.api.requests.count(key=story.account.sid)
    story.account.auth_token = right
    await asking.have_asked(story, every_minutes=2)
    await _standing(story, "asked")

    async def known() -> bool:
        return asking.api.requests.count(key=story.account.sid, status=200) > 0

    await until("an answer of Twilio's", known)
    assert asked <= 3
    await asking.leave_alone(story)
