"""What is known of a subscription, as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backhaul_cli.output import Output, facts

if TYPE_CHECKING:
    from backhaul_client.notificationmodels import Subscription


def where(found: Subscription) -> object:
    """What is called, or who is told."""
    return found.http.url if found.http else found.mail and found.mail.addresses


def say(found: Subscription, json: bool) -> None:
    """Says all that is known of one; a secret that is told this once, too."""
    output = Output(as_json=json)
    standing = found.standing
    secrets = [one for one in found.secrets if one.secret]
    output.thing(
        found,
        lambda: [
            facts(
                ("subscription", found.id),
                ("name", found.name),
                ("types", found.types),
                ("where", where(found)),
                *_http(found),
                ("every", found.mail and f"{found.mail.every_minutes} min"),
                *((name, value) for name, value in _filters(found) if value),
                *_payload(found),
                ("state", found.state),
                ("", found.state_text),
                ("ordering", found.ordering),
                ("policy", found.policy.kind),
                ("tried after", [f"{pause} s" for pause in found.policy.retry_after_s]),
                ("calls a second", found.rate_per_s or None),
                ("calls at once", found.concurrency or None),
                ("alerts", found.alert_addresses),
                ("waiting", standing.waiting),
                ("held", standing.held or None),
                ("failing since", standing.failing_since),
                ("last failure", standing.last_failure),
                ("last success", standing.last_success_at),
                ("rests until", standing.resting_until),
                ("since", found.created_at),
                *(("secret", str(one.secret)) for one in secrets),
                *(("public key", one.public_key) for one in found.secrets if one.public_key),
            )
        ],
    )
    if secrets:
        output.note("Keep the secret, which verifies calls: it is told this once.")


def _http(found: Subscription) -> list[tuple[str, object]]:
    if found.http is None:
        return []
    shown = found.http.credentials
    kinds = {
        "HTTP Basic": shown and shown.basic,
        "a bearer token": shown and shown.bearer_token is not None,
        "a header": shown and shown.header,
        "OAuth": shown and shown.oauth,
        "a certificate": shown and shown.mutual_tls,
    }
    return [
        ("method", found.http.method),
        ("headers", [f"{one.name}: {one.value}" for one in found.http.headers]),
        ("credentials", [name for name, there in kinds.items() if there]),
    ]


def _filters(found: Subscription) -> list[tuple[str, object]]:
    only = found.filter
    return [
        ("channels", only.channels),
        ("communications", only.communication_ids),
        ("error codes", only.error_codes),
        ("attributes", [f"{one.name}={one.value}" for one in only.attributes]),
        ("kinds", only.kinds),
    ]


def _payload(found: Subscription) -> list[tuple[str, object]]:
    sent = found.payload
    if sent is None:
        return []
    several = sent.max_events > 1
    return [("payload", sent.form), ("events a call", f"{sent.max_events} in {sent.max_wait_s} s" if several else None)]
