"""Simulated APIs for the tests of the simulators themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from backhaul_testing.apis.clock import Clock
from backhaul_testing.apis.sendgrid import SendGridApi, SendGridUser
from backhaul_testing.apis.twilio import TwilioAccount, TwilioApi

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> Clock:
    """A clock that stands at noon."""
    return Clock(NOON, running=False)


@pytest.fixture
def twilio_api(clock: Clock) -> Iterator[TwilioApi]:
    """Twilio's API, for which ``clock`` tells the time."""
    with TwilioApi(clock=clock, seed=7) as api:
        yield api


@pytest.fixture
def account(twilio_api: TwilioApi) -> TwilioAccount:
    """An account of Twilio."""
    return twilio_api.account()


@pytest.fixture
def sendgrid_api(clock: Clock) -> Iterator[SendGridApi]:
    """SendGrid's API, for which ``clock`` tells the time."""
    with SendGridApi(clock=clock, seed=7) as api:
        yield api


@pytest.fixture
def user(sendgrid_api: SendGridApi) -> SendGridUser:
    """An account of SendGrid."""
    return sendgrid_api.user("main")
