"""Parts without sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.limits import TokenBucket
from backhaul_common.secrets import CredentialKind, new_credential
from backhaul_common.tenants import Tenant
from backhaul_gateway.admin.updates import TenantUpdates
from backhaul_gateway.admission.auth import CredentialIndex
from backhaul_gateway.admission.limits import retry_after
from backhaul_gateway.settings import GatewaySettings
from backhaul_gateway.web.clients import ClientAddress
from backhaul_gateway.web.masking import masked, masked_body, masked_bytes
from backhaul_gateway.web.parameters import label_of
from cryptography.fernet import Fernet
from pydantic import ValidationError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_token_bucket() -> None:
    clock = Clock()
    bucket = TokenBucket(2.0, 3, clock)
    assert [bucket.take() for _ in range(3)] == [0.0] * 3
    assert bucket.take() == pytest.approx(0.5)
    clock.now += 0.5
    assert bucket.take() == 0.0
    clock.now += 1000
    assert [bucket.take() == 0.0 for _ in range(4)] == [True, True, True, False]
    assert bucket.adjusted(2.0, 3) is bucket
    assert bucket.adjusted(2.0, 4).take() == 0.0
    smaller = TokenBucket(1.0, 10, clock)
    smaller.take()
    assert smaller.adjusted(1.0, 1).take() > 0
    assert (retry_after(0.01), retry_after(1.2)) == (1, 2)


@pytest.mark.parametrize(
    ("query", "label"),
    [
        (b"", ""),
        (b"channelLabel=Twilio", "Twilio"),
        (b"a=b&CHANNELLABEL=Outbound%20Delivery&c=d", "Outbound Delivery"),
        (b"channelLabel=Outbound+Delivery", "Outbound Delivery"),
        (b"channelLabel=a&channelLabel=b", "a"),
        (b"xchannelLabel=a", ""),
        (b"channelLabel", ""),
        (b"%63hannelLabel=a=b", "a=b"),
    ],
)
def test_label_of(query: bytes, label: str) -> None:
    assert label_of(query) == label


def test_client_address() -> None:
    clients = ClientAddress([ip_network("10.0.0.0/8")])

    def of(peer: str, *forwarded: bytes) -> str:
        return clients.of({"client": (peer, 1)}, [(b"x-forwarded-for", value) for value in forwarded])

    assert of("1.2.3.4", b"9.9.9.9") == "1.2.3.4"
    assert of("10.0.0.1") == "10.0.0.1"
    assert of("10.0.0.1", b"6.6.6.6, 9.9.9.9, 10.1.1.1") == "9.9.9.9"
    assert of("10.0.0.1", b"6.6.6.6", b"9.9.9.9") == "9.9.9.9"
    assert of("10.0.0.1", b"nonsense") == "nonsense"
    assert ClientAddress([]).of({"client": None}, []) == ""


def test_credentials_of_nobody() -> None:
    index = CredentialIndex(lambda: True)
    assert index.from_values(None, None) is None
    assert index.from_values(b"bhk_" + b"0" * 12 + b"_" + b"0" * 48, None) is None
    assert index.from_values(None, b"Basic " + b"=" * 400) is None
    assert index.from_token("\udcff") is None


VALID = {"gateway_admin_token": "x" * 16, "secret_keys": Fernet.generate_key().decode()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gateway_admin_token", "short"),
        ("gateway_admin_token", "with a blank in it, too"),
        ("gateway_public_base_url", "callbacks.example.com"),
        ("gateway_public_base_url", "https://user:pass@callbacks.example.com"),
        ("gateway_public_base_url", "https://callbacks.example.com/?x=1"),
        ("gateway_trusted_proxies", "10.0.0.0/99"),
        ("gateway_publish_timeout_s", 60),
        ("object_store_endpoint", "http://127.0.0.1:9000"),
    ],
)
def test_invalid_settings(name: str, value: object) -> None:
    GatewaySettings.model_validate(VALID)
    with pytest.raises(ValidationError) as caught:
        GatewaySettings.model_validate({**VALID, name: value})
    (error,) = caught.value.errors()
    assert name in (*error["loc"], *error["msg"].lower().replace("backhaul_", "").split())


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKHAUL_GATEWAY_ADMIN_TOKEN", "x" * 16)
    monkeypatch.setenv("BACKHAUL_SECRET_KEYS", Fernet.generate_key().decode())
    monkeypatch.setenv("BACKHAUL_GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8, ::1/128")
    monkeypatch.setenv("BACKHAUL_GATEWAY_PUBLIC_BASE_URL", "https://callbacks.example.com/base/")
    settings = GatewaySettings()
    assert len(settings.gateway_trusted_proxies) == 2
    assert settings.public_base_url(1) == "https://callbacks.example.com/base"
    monkeypatch.delenv("BACKHAUL_GATEWAY_PUBLIC_BASE_URL")
    assert GatewaySettings(gateway_host="::1").public_base_url(8080) == "http://[::1]:8080"
    assert "x" * 16 not in repr(settings)


@pytest.mark.parametrize("keys", ["", "not-a-key", "AAAA", "é" * 44])
def test_a_key_ring_that_cannot_be_used_stops_the_start(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    monkeypatch.setenv("BACKHAUL_GATEWAY_ADMIN_TOKEN", "x" * 16)
    monkeypatch.setenv("BACKHAUL_SECRET_KEYS", keys)
    with pytest.raises(ValidationError, match="BACKHAUL_SECRET_KEYS"):
        GatewaySettings()


@pytest.mark.parametrize("kind", ["api", "ingest"])
def test_credentials_are_masked_wherever_they_stand(kind: CredentialKind) -> None:
    _, text, _ = new_credential(kind)
    variants = (
        text,
        text.upper(),
        text.replace("_", "%5F"),
        "".join(f"%{ord(character):02x}" for character in text),
        # By a proxy that encodes what is encoded.
        "".join(f"%25{ord(character):02X}" for character in text),
        text.replace("b", "%252562", 1),
        text.replace("_", "%5f", 1),
        text.replace("h", "%48", 1),
        # Cut short, or with a digit too many, it tells as much.
        text[:-1],
        text + "0",
    )
    for variant in variants:
        for path in (
            "{}",
            "/in/{}/api/postevents",
            "//in/{}/api/postevents",
            "/prefix/IN/{}/api/postevents",
            "/in%2F{}/api/postevents",
            "/in/{}%2Fapi%2Fpostevents",
            "https://callbacks.example.com/api/postevents?channelLabel=Twilio&key={}&a=b",
            "/in/{0}/in/{0}",
        ):
            assert masked(path.format(variant)) == path.format("***")
            line = f"referer: http://h\xe9{path}\r\n".encode("latin-1")
            shown, hidden = (line.replace(b"{}", word).replace(b"{0}", word) for word in (variant.encode(), b"***"))
            assert masked_bytes(shown) == hidden
    for body in (b"{}", b"ErrorUrl=https%3A%2F%2Fx%2Fin%2F{}%2Fapi&a=%5F", b'[{"url":"https://x/in/{}/api?k={}"}]\xff'):
        shown, hidden = (body.replace(b"{}", word) for word in (text.encode(), b"***"))
        assert masked_body(shown) == hidden
        assert masked_body(hidden) == hidden


@pytest.mark.timed
@pytest.mark.parametrize(
    "text",
    [b"bhi_", b"bhk_a", b"bhi_" + b"a" * 1000, b"bhi_" + b"%62" * 300, b"%62%68%69", b"%25", b"bhi_a_g", b"a_%b"],
)
def test_looking_for_what_is_masked_takes_little_time(text: bytes) -> None:
    # Whoever has an ingest token can send it. Usual is 5 ms for the largest body and 1 ms for all that is kept of a
    # head; an eighth of a body takes an eighth of that, where looking twice at everything would take a sixty-fourth.
    kept, body = text * (20_000 // len(text)), text * ((1 << 20) // len(text))
    assert least_seconds(lambda: masked_bytes(kept)) < 0.02
    whole, eighth = least_seconds(lambda: masked_body(body)), least_seconds(lambda: masked_body(body[: len(body) // 8]))
    assert whole < 0.1
    assert whole < 24 * max(eighth, 50e-6)


def least_seconds(work: Callable[[], object]) -> float:
    """CPU time of ``work`` when nothing disturbs it: the least of ten tries."""
    took = []
    for _ in range(10):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return min(took)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/api/postevents?channelLabel=Twilio",
        "/v1/messages/twilio/SM0123456789abcdef0123456789abcdef",
        "/admin/v1/tenants/acme/keys/0123456789ab",
        # The public id alone says which credential it was.
        "bhk_0123456789ab",
        "/in/abhi_and_nobody/x",
    ],
)
def test_nothing_else_is_masked(text: str) -> None:
    assert masked(text) == text
    assert masked_body(text.encode()) == text.encode()
    assert masked_bytes(text.encode()) == text.encode()


class OvertakenStore:
    """A ``TenantStore`` in which somebody else always writes first."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        self.tenant = Tenant(
            id="acme", registration="acme.1", name="Acme", queue_path="acme", created_at=now, updated_at=now
        )

    async def insert(self, tenant: Tenant) -> None:
        raise AssertionError

    async def find(self, tenant_id: str) -> Tenant | None:
        return self.tenant if tenant_id == self.tenant.id else None

    async def owner_of(self, credential_id: str) -> str | None:
        raise AssertionError

    async def page(self, after: str, limit: int) -> list[Tenant]:  # the TenantStore protocol
        return []

    async def replace(self, tenant: Tenant, revision: int) -> bool:  # the TenantStore protocol
        self.tenant = self.tenant.model_copy(update={"revision": revision + 1})
        return False

    async def delete(self, tenant: Tenant) -> bool:
        raise AssertionError


class Silence:
    """An ``Announcer`` that nobody hears."""

    async def tenant_changed(self, tenant_id: str) -> None:
        raise AssertionError


async def test_a_change_that_is_overtaken_again_and_again_is_to_be_repeated() -> None:
    updates = TenantUpdates(OvertakenStore(), Silence(), patience_s=0.05)
    with pytest.raises(BackhaulError) as caught:
        await updates.apply("acme", lambda tenant, _: tenant.model_copy(update={"name": "New"}))
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.fix == "Repeat the request."
    assert caught.value.retry_after_s == 1
