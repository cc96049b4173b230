"""How subscriptions, endpoints and deliveries are stored. Times are unix time in microseconds.

An *endpoint* is where a subscription's deliveries go. One copy of the service works it at a time, under a lease, so
what it allows (rate, concurrency, order, rest after failures) is kept without counting anything over several copies.
What is to be sent, and how often that was tried, is in the deliveries' documents alone: a copy that dies costs the time
of a lease, and sends again what it had sent and not yet written down.

``subscriptions``: what tenants say, as every copy holds it in memory::

    _id                 "sub_…"
    tenant, registration
    revision            grows with each change, of the state as well
    definition          as in the contract, by its field names; secrets in it are encrypted
    state               a word of ``State``
    state_text          why, where Backhaul decided it; absent otherwise
    state_since_us, created_at_us, updated_at_us
    begins              {EVENTS: …, NOTICES: …}: where the streams ended when it was made. It is told of what is behind;
                        absent where NATS was away, and of those that older versions made: created_at_us says it then
    secrets             [{kind: "hmac" | "ed25519", secret: encrypted, public_key, created_at_us, expires_at_us}], the
                        newest first; the last two absent where they do not apply
    made_by             the idempotency key that made it; absent where none did. Unique for its registration
    made_of             a digest of what that call said, encrypted; absent without made_by
    deleted             True from its deletion until its deliveries are gone, and it with them; absent before

``endpoints``: how it stands with a subscription's endpoint; made with the subscription. A second one, by which people
are told by mail what befell the subscription, is made when there is something to tell, and is always active::

    _id                 the subscription's; of the second one with "alert_" before it
    tenant, registration
    owner, epoch, until the lease: see ``backhaul_common.leases``
    active              whether anything is sent: the subscription's state, moved in the same transaction
    due_at_us           not before this time there is anything to send; absent where nothing waits
    told                grows whenever something is added to what waits: whoever sets due_at_us to a later time does so
                        on the condition that nothing was told since it looked
    failing_since_us, last_success_at_us, last_failure_at_us, last_failure   absent where it is not so
    rest_until_us, rests   the breaker: nothing but a probe before that time, and how often it has rested by now
    slow_until_us       until then it is called as an endpoint that has asked for less; absent where none has
    restarts            grows whenever something waits again, which may be older than what its holder has read
    tasks               [{id, which, from_us, to_us, types, about, rate_per_s, after_us, next_us}]: what is to be sent
                        again, or at a rate; done by whoever holds the endpoint. ``which``: "failed", "all",
                        "never_attempted", "waiting" (it was resumed; without a rate, only what was to be tried again
                        later is meant), or "held" (what is held may be released: it has nothing but ``id``, and ``all``
                        where that is also what is of communications that are disabled). ``about``: fields of
                        deliveries, and what they must be; absent where none is asked for. All up to ``after_us`` (by
                        created_at_us) are done, and the next one is due at ``next_us``; both absent where none is

``deliveries``: one telling of one revision of one event or notice to one subscription::

    _id                 delivery_id: 16 bytes
    registration
    subscription        the endpoint's id
    type                "message.delivered"
    event_id, revision
    payload             Event or Notice, as it was on its stream, without ``raw`` where that was not asked for when
                        the delivery was made; ``notice``: True where it is one, absent otherwise
    channel, message_id, communication_id   absent where empty
    order               grows in the order of the stream: its place among those of its key
    key                 bytes that stand for the message or the recipient; absent where order plays no part
    state               "waiting", "held" (its communication is disabled), "delivered", "failed"
    due_at_us           while it waits: when it is sent next. Of a key only the first one counts
    attempts            how many were made since it began to wait: each result is written on the condition of this
    resets              and of this, which grows when it is asked for by itself again; absent where it never was
    again               how often it was asked for again, by itself or with others; absent where it never was
    begun_at_us         when the call began that is under way, where that takes long, or whose result will never be
                        stored, since its copy ended; absent otherwise
    counted, ours       of those: which the policy counts, and which failed on our side; absent: 0
    released            True of one that was held and may be sent, while newer ones of its communication are held behind
                        it; absent otherwise
    unsure              True where whoever made it could not read the subscription, or did not know of which
                        communication it is, of which the subscription asks: whoever is to send it looks first whether
                        it is wanted, and deletes it where it is not; absent otherwise
    call                of one that was sent together with others: the id of that call; absent where it was not
    tries               [{number, at_us, us, status, error, text, answer, request, again}], the latest MAX_TRIES;
                        ``again`` as the delivery had it then
    created_at_us, ended_at_us      the latter absent while it waits
    ends_at             a date, for the index that ends it; absent while it waits

``switched_communications``: those that are disabled, as every copy holds them in memory, and for a day those that were
enabled. A copy that holds something back, and whoever enables, write the same document, so one of the two begins anew::

    _id                 switched_id
    registration, communication_id
    revision            grows with each change, also over a deletion
    disabled            whether it is
    at_us               when it became so, by the normalizer: of what is heard of it, the latest counts
    held                the subscriptions of which something is held, or was when it was enabled: until that is
                        released, in order, what is newer is held as well
    touches             grows with each transaction that only needs it to stay as it is

``notifier_positions``: how far EVENTS and NOTICES are read, as ``MongoProgress`` has it, and ``parked``: of tenants who
are told apart, by queue path, how far that is, while it is not as far as all; and ``{_id: "subscriptions",
version}``, which grows with each write to ``subscriptions``, in its transaction: whoever enqueues reads it in his, and
so never tells by subscriptions that have changed.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from backhaul_common.ids import derived_id

ALERT: Final = "alert_"
"""Begins the id of the endpoint by which people are told of a subscription by mail; the subscription's follows."""

State: TypeAlias = Literal["active", "paused", "disabled"]
DeliveryState: TypeAlias = Literal["waiting", "held", "delivered", "failed"]

MAX_SUBSCRIPTIONS: Final = 50
"""Of one tenant."""

MAX_RATE_PER_S: Final = 1000
"""Calls a second that a subscription, or what is sent again, may ask for; 0 stands for none of its own."""

MAX_TRIES: Final = 30
"""Attempts that a delivery remembers, the latest ones."""


def delivery_id(subscription: str, event_id: str, revision: int) -> bytes:
    """The ``_id`` of a delivery: the same however often its event is read."""
    return bytes.fromhex(derived_id("delivery", subscription, event_id, str(revision)))


def switched_id(registration: str, communication_id: str) -> str:
    """The ``_id`` of what is known of a communication."""
    return derived_id("switched", registration, communication_id)


def is_alert(endpoint: str) -> bool:
    """Whether an endpoint is one by which people are told of a subscription."""
    return endpoint.startswith(ALERT)


def subscription_of(endpoint: str) -> str:
    """The subscription that an endpoint, or its deliveries, belong to."""
    return endpoint.removeprefix(ALERT)


def webhook_id(delivery: bytes) -> str:
    """What all attempts of a delivery carry as ``webhook-id``. Without a full stop, since signatures have one there."""
    return f"msg_{delivery.hex()}"
