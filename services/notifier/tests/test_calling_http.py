"""Whole calls to real endpoints through the real door: what they say, show and sign, and what becomes of them."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest
from backhaul_common.secrets import SecretBox
from backhaul_common.tracing import Tracing
from backhaul_notifier.calling.caller import SECRETS_UNREADABLE
from backhaul_notifier.calling.credentials import OURS
from backhaul_notifier.calling.knowing import NORMALIZER_AWAY, AwayError
from backhaul_notifier.catalogue.samples import sample_of
from backhaul_notifier.catalogue.types import TYPES
from backhaul_notifier.documents import webhook_id
from backhaul_notifier.door.outcome import MAX_ANSWER_BYTES
from backhaul_notifier.schedules import DISPATCH, UNRESOLVED, Outcome
from backhaul_notifier.signing import SecretKind, SigningKey
from backhaul_notifier.subscriptions.secrets_of import Seals
from backhaul_notifier.variables import Known
from backhaul_proto.event.v1.event_pb2 import Attribute, Event
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from calling_rig import HMAC, NOW_US, PAIR, TRACE, WEBHOOK_ID, Knows, Opening, calling, delivery, http, subscription
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from door_rig import Authority, Call, endpoint, server_tls
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from standardwebhooks.webhooks import Webhook


async def answered(call: Call) -> None:
    await call.answer()


def event(**more: object) -> Event:
    made = sample_of(TYPES["message.delivered"])
    assert isinstance(made, Event)
    made.MergeFrom(Event(**more))  # type: ignore[arg-type]  # as each test has it
    return made


class TestWhatIsSent:
    async def test_the_official_library_and_cryptography_verify_a_call(self) -> None:
        opening = Opening((HMAC, PAIR))
        async with endpoint(answered) as there, calling(opening) as rig:
            said = delivery()
            attempted = await rig.caller.call(subscription(http(there.url("/hook?x=1"))), [said], webhook_id(said.id))
        (call,) = there.calls
        assert Webhook(HMAC.text).verify(call.body, call.headers)["type"] == "message.delivered"
        # The newer key is first.
        v1a, v1 = call.headers["webhook-signature"].split(" ")
        assert v1.startswith("v1,")
        signed = b".".join((webhook_id(said.id).encode(), call.headers["webhook-timestamp"].encode(), call.body))
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(PAIR.public_text.removeprefix("whpk_")))
        public.verify(base64.b64decode(v1a.removeprefix("v1a,")), signed)
        assert attempted.outcome == Outcome(200)
        assert (attempted.answer, attempted.text) == ("ok", "The endpoint answered 200.")
        assert attempted.request == f"POST {there.url('/hook')}"
        assert 0 < attempted.us < 20_000_000

    async def test_every_header_of_a_call(self) -> None:
        async with endpoint(answered) as there, calling() as rig:
            said = delivery(said=event(traceparent=TRACE))
            await rig.caller.call(subscription(http(there.url())), [said], WEBHOOK_ID)
        (call,) = there.calls
        headers = dict(call.headers)
        assert headers.pop("webhook-signature").startswith("v1,")
        assert headers.pop("webhook-timestamp").isdigit()
        assert headers == {
            "host": f"127.0.0.1:{there.port}",
            "accept-encoding": "identity",
            "webhook-id": WEBHOOK_ID,
            "traceparent": TRACE,
            "user-agent": "Backhaul",
            "content-type": "application/json",
            "content-length": str(len(call.body)),
        }

    async def test_own_headers_of_a_subscription_never_take_the_place_of_ours(self) -> None:
        given = [Attribute(name=name.title(), value="theirs") for name in sorted({*OURS, "webhook-id"})]
        given += [Attribute(name="X-Shop", value="7")]
        credentials = pb.Credentials(header=pb.HeaderCredentials(name="Webhook-Signature", value="theirs"))
        async with endpoint(answered) as there, calling(Opening(credentials=credentials)) as rig:
            said = delivery(said=event(traceparent=TRACE))
            await rig.caller.call(subscription(http(there.url(), headers=given)), [said], WEBHOOK_ID)
        (call,) = there.calls
        assert "theirs" not in call.head
        assert call.headers["x-shop"] == "7"
        Webhook(HMAC.text).verify(call.body, call.headers)

    async def test_a_batch_is_one_signed_list(self) -> None:
        async with endpoint(answered) as there, calling() as rig:
            definition = http(there.url())
            definition.payload.max_events = 10
            told = [delivery(number=1), delivery("reply.received", number=2)]
            await rig.caller.call(subscription(definition), told, WEBHOOK_ID)
            await rig.caller.call(subscription(definition), told[:1], WEBHOOK_ID)
        both, one = (Webhook(HMAC.text).verify(call.body, call.headers) for call in there.calls)
        assert [each["type"] for each in both] == ["message.delivered", "reply.received"]
        assert isinstance(one, list)
        assert len(one) == 1

    async def test_forms(self) -> None:
        said = delivery(said=event(raw=b'{"a": 1}'))
        bodies = []
        async with endpoint(answered) as there, calling() as rig:
            for revision, (form, raw) in enumerate((("FULL", True), ("THIN", False), ("CLOUDEVENTS", False))):
                definition = http(there.url())
                definition.payload.form = pb.PayloadForm.Value(f"PAYLOAD_FORM_{form}")
                definition.payload.with_raw = raw
                await rig.caller.call(subscription(definition, revision=revision), [said], WEBHOOK_ID)
                bodies.append(json.loads(there.calls[-1].body))
        full, thin, cloud = bodies
        assert base64.b64decode(full["data"]["raw_base64"]) == b'{"a": 1}'
        assert "links" in thin["data"]
        assert cloud["specversion"] == "1.0"
        assert there.calls[-1].headers["content-type"] == "application/cloudevents+json"

    async def test_what_calls_have_in_common_is_made_once_a_revision(self) -> None:
        opening = Opening()
        async with endpoint(answered) as there, calling(opening) as rig:
            first = subscription(http(there.url("/one")))
            for _ in range(3):
                await rig.caller.call(first, [delivery()], WEBHOOK_ID)
            assert opening.opens == 1
            await rig.caller.call(subscription(http(there.url("/two")), revision=2), [delivery()], WEBHOOK_ID)
        assert opening.opens == 2
        assert [call.head.split(" ")[1] for call in there.calls] == ["/one", "/one", "/one", "/two"]

    async def test_a_secret_whose_grace_is_over_signs_no_more_though_nothing_else_has_changed(self) -> None:
        now_us = [NOW_US]
        old = SigningKey(SecretKind.HMAC, b"o" * 32, 1, NOW_US + 1_000_000)
        async with endpoint(answered) as there, calling(Opening((HMAC, old)), now_us=lambda: now_us[0]) as rig:
            same = subscription(http(there.url()))
            for _ in range(2):
                await rig.caller.call(same, [delivery()], WEBHOOK_ID)
                now_us[0] += 1_000_000
        with_grace, after = there.calls
        for call, keys in ((with_grace, (HMAC, old)), (after, (HMAC,))):
            signed = b".".join((WEBHOOK_ID.encode(), call.headers["webhook-timestamp"].encode(), call.body))
            assert set(call.headers["webhook-signature"].split(" ")) == {key.signature(signed) for key in keys}


class TestCredentials:
    @pytest.mark.parametrize(
        ("credentials", "name", "value", "secret"),
        [
            (
                pb.Credentials(basic=pb.BasicCredentials(username="übung", password="pässword")),
                "authorization",
                "Basic " + base64.b64encode("übung:pässword".encode()).decode(),
                "pässword",
            ),
            (pb.Credentials(bearer_token="t0ken-of-ours"), "authorization", "Bearer t0ken-of-ours", "t0ken-of-ours"),
            (
                pb.Credentials(header=pb.HeaderCredentials(name="X-Api-Key", value="k3y-of-ours")),
                "x-api-key",
                "k3y-of-ours",
                "k3y-of-ours",
            ),
        ],
    )
    async def test_they_are_shown_and_an_answer_that_repeats_them_is_kept_without(
        self, credentials: pb.Credentials, name: str, value: str, secret: str
    ) -> None:
        async def echoing(call: Call) -> None:
            await call.answer(f"{call.head} {secret}".encode())

        opening = Opening(credentials=credentials)
        async with endpoint(echoing) as there, calling(opening) as rig:
            attempted = await rig.caller.call(subscription(http(there.url())), [delivery()], WEBHOOK_ID)
        assert there.calls[0].headers[name] == value
        assert secret not in attempted.answer
        assert value.removeprefix("Basic ") not in attempted.answer
        assert secret not in repr(rig.caller._known)

    @pytest.mark.parametrize("left", [4, 5, 700, 3000])
    async def test_an_answer_that_is_cut_within_a_secret_keeps_nothing_of_it(self, left: int) -> None:
        token = "t0ken" * 1500

        async def echoing(call: Call) -> None:
            await call.answer(b"." * (MAX_ANSWER_BYTES - left) + token.encode())

        opening = Opening(credentials=pb.Credentials(bearer_token=token))
        async with endpoint(echoing) as there, calling(opening) as rig:
            attempted = await rig.caller.call(subscription(http(there.url())), [delivery()], WEBHOOK_ID)
        assert attempted.answer == "." * (MAX_ANSWER_BYTES - left) + "\N{HORIZONTAL ELLIPSIS}"

    async def test_a_client_certificate_is_shown(self, tmp_path: Path) -> None:
        """Without it there is no connection."""
        authority = Authority()
        file = tmp_path / "authority.pem"
        file.write_text(authority.pem, "utf-8")
        tls = server_tls(tmp_path, authority.issue("127.0.0.1"), clients=authority)
        mine = authority.issue("backhaul")
        shown = pb.Credentials(mutual_tls=pb.MutualTls(certificate=mine.certificate, private_key=mine.key))
        async with endpoint(answered, tls) as there:
            url = there.url(scheme="https")
            async with calling(Opening(credentials=shown), notifier_ca_file=file) as rig:
                good = await rig.caller.call(subscription(http(url)), [delivery()], WEBHOOK_ID)
            async with calling(notifier_ca_file=file) as rig:
                bad = await rig.caller.call(subscription(http(url)), [delivery()], WEBHOOK_ID)
        assert good.outcome == Outcome(200)
        assert bad.outcome.status == 0
        assert bad.outcome.error in {"tls_failed", "reset"}
        assert not bad.outcome.ours


class TestAddresses:
    async def test_variables_are_encoded_in_the_address(self) -> None:
        knows = Knows(Known(attributes={"first name": "Anna & Ben/../"}, environment={"shop": "42"}))
        async with endpoint(answered) as there, calling(knows=knows) as rig:
            url = there.url("/${member.first name}/${event.kind}?shop=${shop}&c=${communicationId}")
            said = delivery(said=event(communication_id="spring sale"))
            attempted = await rig.caller.call(subscription(http(url)), [said], WEBHOOK_ID)
        assert there.calls[0].head.split(" ")[1] == ("/Anna%20%26%20Ben%2F..%2F/delivered?shop=42&c=spring%20sale")
        assert attempted.request == f"POST {there.url('/Anna%20%26%20Ben%2F..%2F/delivered')}"

    async def test_nobody_is_asked_for_what_the_event_says(self) -> None:
        async with endpoint(answered) as there, calling() as rig:
            url = there.url("/${event.id}")
            await rig.caller.call(subscription(http(url)), [delivery()], WEBHOOK_ID)
        assert rig.knows.asked == []
        assert len(there.calls) == 1

    async def test_a_variable_without_a_value_is_told_in_words_and_nothing_is_sent(self) -> None:
        async with endpoint(answered) as there, calling() as rig:
            url = there.url("/${member.surname}?a=b")
            attempted = await rig.caller.call(subscription(http(url)), [delivery()], WEBHOOK_ID)
        assert attempted.outcome == Outcome(error=UNRESOLVED)
        assert "${member.surname} has no value" in attempted.text
        assert attempted.request == f"POST {there.url('/${member.surname}')}"
        assert there.calls == []

    async def test_the_normalizers_outage_is_ours(self) -> None:
        knows = Knows()
        knows.answer = AwayError("The normalizer did not say what the address needs.")
        async with endpoint(answered) as there, calling(knows=knows) as rig:
            url = there.url("/${surname}")
            attempted = await rig.caller.call(subscription(http(url)), [delivery()], WEBHOOK_ID)
        assert attempted.outcome == Outcome(error=NORMALIZER_AWAY)
        assert attempted.outcome.ours
        assert there.calls == []

    async def test_what_the_normalizer_takes_is_of_the_attempts_time(self) -> None:
        async def hang(call: Call) -> None:
            await asyncio.sleep(10)

        knows = Knows(Known(attributes={"surname": "Berg"}))
        knows.takes_s = 0.8
        policy = replace(DISPATCH, timeout_s=2)
        async with endpoint(hang) as there, calling(knows=knows) as rig:
            url = there.url("/${surname}")
            attempted = await rig.caller.call(subscription(http(url), policy=policy), [delivery()], WEBHOOK_ID)
        assert attempted.outcome == Outcome(error="timeout")
        assert 1_900_000 <= attempted.us < 2_500_000

    async def test_the_endpoint_has_half_of_an_attempts_time_whatever_the_normalizer_takes(self) -> None:
        knows = Knows()
        knows.takes_s = 10
        policy = replace(DISPATCH, timeout_s=1)
        async with endpoint(answered) as there, calling(knows=knows) as rig:
            url = there.url("/${surname}")
            attempted = await rig.caller.call(subscription(http(url), policy=policy), [delivery()], WEBHOOK_ID)
        assert attempted.outcome == Outcome(error=NORMALIZER_AWAY)
        assert 400_000 <= attempted.us < 900_000
        assert there.calls == []


class TestWhatBecomesOfIt:
    async def test_a_status_with_retry_after(self) -> None:
        async def busy(call: Call) -> None:
            await call.answer(b"later", 429, "Retry-After: 120\r\n")

        async with endpoint(busy) as there, calling() as rig:
            attempted = await rig.caller.call(subscription(http(there.url())), [delivery()], WEBHOOK_ID)
        assert attempted.outcome == Outcome(429, retry_after_s=120)
        assert (attempted.text, attempted.answer) == ("The endpoint answered 429.", "later")

    async def test_an_address_that_is_not_allowed(self) -> None:
        async with endpoint(answered) as there, calling(notifier_allowed_networks="") as rig:
            attempted = await rig.caller.call(subscription(http(there.url())), [delivery()], WEBHOOK_ID)
        assert attempted.outcome == Outcome(error="address_refused")
        assert "loopback" in attempted.text
        assert there.calls == []

    async def test_the_policys_time_is_for_all_of_it(self) -> None:
        async def hanging(call: Call) -> None:
            await there.ended.wait()

        async with endpoint(hanging) as there, calling() as rig:
            policy = DISPATCH.__class__(DISPATCH.kind, 1, (300,))
            attempted = await rig.caller.call(subscription(http(there.url()), policy=policy), [delivery()], WEBHOOK_ID)
        assert attempted.outcome == Outcome(error="timeout")
        assert 900_000 < attempted.us < 10_000_000

    async def test_credentials_that_no_key_opens_are_ours_and_tried_again_when_one_does(self) -> None:
        opening = Opening()
        opening.sealed = True
        async with endpoint(answered) as there, calling(opening) as rig:
            attempted = await rig.caller.call(subscription(http(there.url())), [delivery()], WEBHOOK_ID)
            assert attempted.outcome == Outcome(error=SECRETS_UNREADABLE)
            assert attempted.outcome.ours
            opening.sealed = False
            again = await rig.caller.call(subscription(http(there.url())), [delivery()], WEBHOOK_ID)
        assert again.outcome == Outcome(200)

    async def test_an_address_that_the_rules_of_today_refuse_is_told(self) -> None:
        async with calling() as rig:
            attempted = await rig.caller.call(subscription(http("ftp://example.com/")), [delivery()], WEBHOOK_ID)
        assert attempted.outcome == Outcome(error="request_invalid")
        assert "https://" in attempted.text

    async def test_who_is_cancelled_leaves_nothing_behind(self) -> None:
        arrived = asyncio.Event()

        async def hanging(call: Call) -> None:
            arrived.set()
            await there.ended.wait()

        async with endpoint(hanging) as there, calling() as rig:
            running = asyncio.create_task(rig.caller.call(subscription(http(there.url())), [delivery()], WEBHOOK_ID))
            await arrived.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running


async def test_what_subscriptions_hold_sealed_is_opened_for_calls() -> None:
    """By those who seal it."""
    seals = Seals(SecretBox([base64.urlsafe_b64encode(b"s" * 32).decode()]))
    async with endpoint(answered) as there, calling() as rig:
        definition = http(there.url(), credentials=pb.Credentials(bearer_token="t0ken-of-ours"))
        mine = subscription(definition)
        sealed = seals.sealed_definition(mine.id, definition)
        mine = replace(mine, definition=sealed, secrets=(seals.sealed_key(mine.id, HMAC),))
        rig.caller._opens = seals
        good = await rig.caller.call(mine, [delivery()], WEBHOOK_ID)
        elsewhere = replace(mine, id="sub_aaaaaaaaaaaaaaaaaaaaaaaa")
        bad = await rig.caller.call(elsewhere, [delivery()], WEBHOOK_ID)
    assert good.outcome == Outcome(200)
    (call,) = there.calls
    assert call.headers["authorization"] == "Bearer t0ken-of-ours"
    Webhook(HMAC.text).verify(call.body, call.headers)
    assert bad.outcome == Outcome(error=SECRETS_UNREADABLE)


class TestTraces:
    @staticmethod
    def tracing() -> tuple[Tracing, InMemorySpanExporter]:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return Tracing("notifier", provider), exporter

    async def test_an_attempt_is_a_span_of_the_events_trace_and_the_endpoint_gets_it(self) -> None:
        async def failing(call: Call) -> None:
            await call.answer(status=500)

        tracing, exporter = self.tracing()
        async with endpoint(failing) as there, calling(tracing=tracing) as rig:
            said = delivery(said=event(traceparent=TRACE))
            await rig.caller.call(subscription(http(there.url())), [said], WEBHOOK_ID)
        (span,) = exporter.get_finished_spans()
        assert span.context is not None
        assert span.parent is not None
        assert f"{span.context.trace_id:032x}" == TRACE[3:35]
        assert f"{span.parent.span_id:016x}" == TRACE[36:52]
        assert there.calls[0].headers["traceparent"] == f"{TRACE[:36]}{span.context.span_id:016x}-01"
        assert span.attributes is not None
        assert span.attributes["http.response.status_code"] == 500
        assert not span.status.is_ok
        assert there.port > 0

    async def test_of_several_events_it_is_linked_to_each(self) -> None:
        other = TRACE.replace("0af7", "1bf7")
        tracing, exporter = self.tracing()
        async with endpoint(answered) as there, calling(tracing=tracing) as rig:
            definition = http(there.url())
            definition.payload.max_events = 2
            told = [delivery(said=event(traceparent=one), number=at) for at, one in enumerate((TRACE, other))]
            await rig.caller.call(subscription(definition), told, WEBHOOK_ID)
        (span,) = exporter.get_finished_spans()
        assert [f"{link.context.trace_id:032x}" for link in span.links] == [TRACE[3:35], other[3:35]]
        assert span.parent is None
