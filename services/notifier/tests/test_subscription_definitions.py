"""What a tenant may say of a subscription: what is wrong names its field and the fix, and no secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.secrets import SecretBox
from backhaul_notifier.door.dialing import Dialer
from backhaul_notifier.door.names import Names
from backhaul_notifier.door.ranges import Ranges
from backhaul_notifier.door.settings import DoorSettings
from backhaul_notifier.door.target import read_target
from backhaul_notifier.schedules import PolicyKind
from backhaul_notifier.subscriptions import stored
from backhaul_notifier.subscriptions.secrets_of import Seals, blank, with_kept
from backhaul_notifier.subscriptions.validation import MAX_BYTES, checked
from backhaul_proto.event.v1.event_pb2 import EVENT_KIND_DELIVERED, Attribute
from backhaul_proto.notifier.v1 import notifier_pb2 as pb
from cryptography.fernet import Fernet
from door_rig import Hanging
from google.protobuf.message import Message
from pydantic import ValidationError
from subscriptions_rig import key_pair

SECRET = "hunter2-and-more"
GET, POST = pb.HTTP_METHOD_GET, pb.HTTP_METHOD_POST

Change = Callable[[pb.Definition], Any]


def definition(**fields: Any) -> pb.Definition:
    made = pb.Definition(
        name="Orders", types=["message.delivered"], http=pb.HttpDestination(url="https://example.com/sent")
    )
    for name, value in fields.items():
        if isinstance(value, Message):
            getattr(made, name).CopyFrom(value)
        elif isinstance(value, (list, tuple)):
            getattr(made, name)[:] = value
        else:
            setattr(made, name, value)
    return made


def door_check(url: str) -> None:
    """As the door checks, without its client."""
    settings = DoorSettings(_env_file=None)
    ranges = Ranges(settings.notifier_allowed_networks, settings.notifier_refused_networks)
    Dialer(Names(Hanging({}), lambda: 0.0), ranges, settings.door_limits(), None).require(read_target(url))


CERTIFICATE, PRIVATE_KEY = key_pair()
OTHER_KEY = key_pair()[1]


def http(**fields: Any) -> pb.Definition:
    return definition(http=pb.HttpDestination(**{"url": "https://example.com/sent", **fields}))


def showing(**fields: Any) -> pb.Definition:
    return http(credentials=pb.Credentials(**fields))


def headed(*pairs: tuple[str, str]) -> pb.Definition:
    return http(headers=[Attribute(name=name, value=value) for name, value in pairs])


def mail(*addresses: str, **fields: Any) -> pb.Definition:
    return definition(mail=pb.MailDestination(addresses=addresses), **fields)


def oauth(**fields: Any) -> pb.Definition:
    given = {"token_url": "https://id.example.com/t", "client_id": "me", "client_secret": SECRET, **fields}
    return showing(oauth=pb.OAuthCredentials(**given))


def tls(certificate: str = CERTIFICATE, private_key: str = PRIVATE_KEY) -> pb.Credentials:
    return pb.Credentials(mutual_tls=pb.MutualTls(certificate=certificate, private_key=private_key))


def paid(**fields: Any) -> pb.Definition:
    return definition(payload=pb.Payload(**fields))


def ruled(**fields: Any) -> pb.Definition:
    return definition(policy=pb.Policy(**fields))


NEWER: Any = 99


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        (pb.Definition(), ["definition.types", "definition"]),
        (definition(name="n" * 129), ["definition.name"]),
        (definition(name="Orders\r\nBcc: all@example.com"), ["definition.name"]),
        (definition(types=[]), ["definition.types"]),
        (definition(types=["message.*", "no.such", "!!"]), ["definition.types[1]", "definition.types[2]"]),
        (definition(types=["*"] * 101), ["definition.types"]),
        (definition(filter=pb.Filter(kinds=[NEWER])), ["definition.filter.kinds[0]"]),
        (definition(filter=pb.Filter(channels=[""])), ["definition.filter.channels[0]"]),
        (definition(filter=pb.Filter(attributes=[Attribute(value="x")])), ["definition.filter.attributes[0]"]),
        (definition(filter=pb.Filter(error_codes=["x" * MAX_BYTES])), ["definition"]),
        (definition(ordering=NEWER), ["definition.ordering"]),
        (definition(rate_per_s=1001), ["definition.rate_per_s"]),
        (definition(rate_per_s=-1), ["definition.rate_per_s"]),
        (definition(concurrency=65), ["definition.concurrency"]),
        (definition(concurrency=-1), ["definition.concurrency"]),
        (definition(alert_addresses=["a@example.com"] * 11), ["definition.alert_addresses"]),
        (definition(alert_addresses=["ok@example.com", "no"]), ["definition.alert_addresses[1]"]),
        (http(method=NEWER), ["definition.http.method"]),
        (http(method=GET), ["definition.http.method"]),
        (http(url=""), ["definition.http.url"]),
        (http(url="example.com"), ["definition.http.url"]),
        (http(url="ftp://example.com/"), ["definition.http.url"]),
        (http(url="http://example.com/"), ["definition.http.url"]),
        (http(url=f"https://user:{SECRET}@example.com/"), ["definition.http.url"]),
        (http(url="https://${member.host}/"), ["definition.http.url"]),
        (http(url="https://example.com/${event.nothing}"), ["definition.http.url"]),
        (http(url="https://example.com/${batchId"), ["definition.http.url"]),
        (http(url="https://127.0.0.1/"), ["definition.http.url"]),
        (http(url="https://0x7f.1/"), ["definition.http.url"]),
        (http(url="https://2130706433/${event.id}"), ["definition.http.url"]),
        (http(url="https://[::ffff:10.0.0.1]/"), ["definition.http.url"]),
        (http(url="https://169.254.169.254/latest/meta-data"), ["definition.http.url"]),
        (http(url="https://[64:ff9b::7f00:1]/"), ["definition.http.url"]),
        (headed(("X-Ours", "a\r\nX-Theirs: b")), ["definition.http.headers[0]"]),
        (headed(("X Ours", "a")), ["definition.http.headers[0]"]),
        (headed(("", "a")), ["definition.http.headers[0]"]),
        (headed(("Host", "metadata")), ["definition.http.headers[0]"]),
        (headed(("Transfer-Encoding", "chunked")), ["definition.http.headers[0]"]),
        (headed(("Webhook-Signature", "v1,x")), ["definition.http.headers[0]"]),
        (headed(("content-type", "text/plain")), ["definition.http.headers[0]"]),
        (headed(("User-Agent", "us")), ["definition.http.headers[0]"]),
        (headed(("Authorization", SECRET)), ["definition.http.headers[0]"]),
        (headed(("X-A", "1"), ("x-a", "2")), ["definition.http.headers[1]"]),
        (headed(("X-A", "1" * 4097)), ["definition.http.headers[0]"]),
        (headed(("X-" + "a" * 255, "1")), ["definition.http.headers[0].name"]),
        (
            showing(header=pb.HeaderCredentials(name="X-" + "a" * 255, value=SECRET)),
            ["definition.http.credentials.header.name"],
        ),
        (headed(*((f"X-{number}", "1") for number in range(21))), ["definition.http.headers"]),
        (http(credentials=pb.Credentials()), ["definition.http.credentials"]),
        (showing(basic=pb.BasicCredentials(password=SECRET)), ["definition.http.credentials.basic.username"]),
        (showing(basic=pb.BasicCredentials(username="a:b")), ["definition.http.credentials.basic.username"]),
        (
            showing(basic=pb.BasicCredentials(username="a", password=SECRET + "\n")),
            ["definition.http.credentials.basic.password"],
        ),
        (showing(bearer_token=""), ["definition.http.credentials.bearer_token"]),
        (showing(bearer_token=SECRET + "\r\n"), ["definition.http.credentials.bearer_token"]),
        (
            showing(header=pb.HeaderCredentials(name="X-Key")),
            ["definition.http.credentials.header.value"],
        ),
        (
            showing(header=pb.HeaderCredentials(name="Host", value=SECRET)),
            ["definition.http.credentials.header"],
        ),
        (
            showing(header=pb.HeaderCredentials(name="webhook-id", value=SECRET)),
            ["definition.http.credentials.header.name"],
        ),
        (
            showing(header=pb.HeaderCredentials(name="Accept-Encoding", value=SECRET)),
            ["definition.http.credentials.header.name"],
        ),
        (oauth(token_url=""), ["definition.http.credentials.oauth.token_url"]),
        (oauth(token_url="https://10.0.0.1/t"), ["definition.http.credentials.oauth.token_url"]),
        (oauth(token_url="https://id.example.com/${event.id}"), ["definition.http.credentials.oauth.token_url"]),
        (oauth(client_id=""), ["definition.http.credentials.oauth.client_id"]),
        (oauth(client_secret=""), ["definition.http.credentials.oauth.client_secret"]),
        (oauth(scope='a "b"'), ["definition.http.credentials.oauth.scope"]),
        (oauth(audience="a\n"), ["definition.http.credentials.oauth.audience"]),
        (http(credentials=tls(CERTIFICATE, "")), ["definition.http.credentials.mutual_tls.private_key"]),
        (http(credentials=tls("", PRIVATE_KEY)), ["definition.http.credentials.mutual_tls.certificate"]),
        (http(credentials=tls("x", PRIVATE_KEY)), ["definition.http.credentials.mutual_tls.certificate"]),
        (http(credentials=tls(CERTIFICATE, "x")), ["definition.http.credentials.mutual_tls.private_key"]),
        (http(credentials=tls(CERTIFICATE, OTHER_KEY)), ["definition.http.credentials.mutual_tls.private_key"]),
        (http(credentials=tls(CERTIFICATE * 40)), ["definition.http.credentials.mutual_tls.certificate"]),
        (
            http(url="http://example.com/", credentials=tls()),
            ["definition.http.url", "definition.http.credentials.mutual_tls"],
        ),
        (paid(form=NEWER), ["definition.payload.form"]),
        (paid(max_events=101), ["definition.payload.max_events"]),
        (paid(max_events=-1), ["definition.payload.max_events"]),
        (paid(max_wait_s=61), ["definition.payload.max_wait_s"]),
        (paid(form=pb.PAYLOAD_FORM_SPEC, max_events=2), ["definition.payload.max_events"]),
        (paid(form=pb.PAYLOAD_FORM_THIN, with_raw=True), ["definition.payload.with_raw"]),
        (
            definition(
                http=pb.HttpDestination(url="https://example.com/${event.id}"), payload=pb.Payload(max_events=2)
            ),
            ["definition.http.url"],
        ),
        (ruled(kind=NEWER), ["definition.policy.kind"]),
        (ruled(kind=pb.POLICY_KIND_RCS, timeout_s=5), ["definition.policy.timeout_s"]),
        (ruled(timeout_s=5), ["definition.policy.timeout_s"]),
        (ruled(kind=pb.POLICY_KIND_CUSTOM, retry_after_s=[0]), ["definition.policy.retry_after_s[0]"]),
        (ruled(kind=pb.POLICY_KIND_CUSTOM, retry_after_s=[1] * 21), ["definition.policy.retry_after_s"]),
        (ruled(kind=pb.POLICY_KIND_CUSTOM, timeout_s=121), ["definition.policy.timeout_s"]),
        (mail(), ["definition.mail.addresses"]),
        (mail("Team <team@example.com>"), ["definition.mail.addresses[0]"]),
        (mail("a@example.com\nBcc: b@example.com"), ["definition.mail.addresses[0]"]),
        (mail("=?utf-8?q?a?=@example.com"), ["definition.mail.addresses[0]"]),
        (mail("a@localhost"), ["definition.mail.addresses[0]"]),
        (mail("a@[127.0.0.1]"), ["definition.mail.addresses[0]"]),
        (mail("a" * 65 + "@example.com"), ["definition.mail.addresses[0]"]),
        (mail("a@example.com", payload=pb.Payload(max_events=5)), ["definition.payload"]),
        (mail("a@example.com", ordering=pb.ORDERING_MESSAGE), ["definition.ordering"]),
        (definition(mail=pb.MailDestination(addresses=["a@example.com"], every_minutes=1441)), [
            "definition.mail.every_minutes"
        ]),
    ],
)  # fmt: skip
def test_what_is_wrong_names_its_field(given: pb.Definition, fields: list[str]) -> None:
    with pytest.raises(BackhaulError) as caught:
        checked(given, door_check)
    error = caught.value
    assert error.code is Code.INVALID_ARGUMENT
    assert [one.field for one in error.violations] == fields
    assert all(one.message and one.fix for one in error.violations)
    said = repr([error, error.violations])
    assert SECRET not in said
    assert "PRIVATE KEY" not in said


def test_everything_that_is_wrong_is_said_at_once() -> None:
    given = definition(types=["nothing.at_all"], name="\n", rate_per_s=-1, policy=pb.Policy(kind=NEWER))
    with pytest.raises(BackhaulError) as caught:
        checked(given, door_check)
    assert [one.field for one in caught.value.violations] == [
        "definition.name",
        "definition.types[0]",
        "definition.policy.kind",
        "definition.rate_per_s",
    ]


def test_what_says_nothing_has_its_default_and_names_are_as_they_are_stored() -> None:
    given = definition(types=["Message.Delivered", "message.delivered"], filter=pb.Filter(channels=[" Twilio "]))
    made = checked(given, door_check)
    assert list(made.types) == ["message.delivered"]
    assert list(made.filter.channels) == ["twilio"]
    assert (made.http.method, made.payload.form) == (POST, pb.PAYLOAD_FORM_FULL)
    assert (made.policy.kind, made.ordering) == (pb.POLICY_KIND_STANDARD, pb.ORDERING_NONE)
    assert checked(made, door_check) == made
    told = checked(mail("a@example.com", "a@example.com"), door_check)
    assert list(told.mail.addresses) == ["a@example.com"]
    assert checked(told, door_check) == told


@pytest.mark.parametrize(
    "given",
    [
        http(method=GET, url="https://example.com/s?m=${memberId}&c=${communicationId}"),
        showing(basic=pb.BasicCredentials(username="me", password=SECRET)),
        showing(bearer_token=SECRET),
        showing(header=pb.HeaderCredentials(name="Authorization", value=f"Token {SECRET}")),
        oauth(scope="a b", audience="them"),
        http(credentials=tls()),
        headed(("X-Ours", "a, b"), ("Accept", "text/plain")),
    ],
)
def test_what_is_good_is_stored_and_read_as_it_is(given: pb.Definition) -> None:
    if given.http.method == GET:
        given.payload.form = pb.PAYLOAD_FORM_SPEC
    made = checked(given, door_check)
    seals = Seals(SecretBox([Fernet.generate_key().decode()]))
    sealed = seals.sealed_definition("sub_1", made)
    assert SECRET not in str(sealed)
    assert "PRIVATE KEY" not in str(sealed)
    row = row_of(stored.document_of(sealed))
    assert stored.read(row).definition == sealed
    assert seals.unsealed_definition("sub_1", sealed) == made
    assert SECRET not in str(blank(sealed))
    assert with_kept(blank(made), made) == made


def row_of(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "_id": "sub_1",
        "tenant": "acme",
        "registration": "acme.1",
        "revision": 1,
        "definition": document,
        "state": "active",
        "state_since_us": 1,
        "created_at_us": 1,
        "updated_at_us": 1,
        "secrets": [],
    }


def test_a_secret_opens_in_its_own_place_alone() -> None:
    box = SecretBox([Fernet.generate_key().decode()])
    seals = Seals(box)
    sealed = seals.sealed("sub_1", "credentials.basic", SECRET)
    assert seals.unsealed("sub_1", "credentials.basic", sealed) == SECRET
    for id_, place, text in (
        ("sub_2", "credentials.basic", sealed),
        ("sub_1", "credentials.header", sealed),
        ("sub_1", "credentials.basic", box.encrypt(f"sub_1\ncredentials.basic\n{SECRET}")),
    ):
        with pytest.raises(ValueError, match="secret") as caught:
            seals.unsealed(id_, place, text)
        assert SECRET not in str(caught.value)


def test_a_secret_is_not_kept_for_credentials_of_another_kind() -> None:
    before = showing(bearer_token=SECRET)
    assert with_kept(showing(bearer_token=""), before).http.credentials.bearer_token == SECRET
    other = showing(basic=pb.BasicCredentials(username="me"))
    assert with_kept(other, before) == other
    assert with_kept(http(), before) == http()
    assert with_kept(showing(bearer_token=""), mail("a@example.com")) == showing(bearer_token="")


@pytest.mark.parametrize(
    "credentials",
    [
        pb.Credentials(basic=pb.BasicCredentials(username="me", password=SECRET)),
        pb.Credentials(bearer_token=SECRET),
        pb.Credentials(header=pb.HeaderCredentials(name="x-key", value=SECRET)),
        pb.Credentials(
            oauth=pb.OAuthCredentials(token_url="https://id.example.com/t", client_id="us", client_secret=SECRET)
        ),
    ],
)
def test_a_secret_is_shown_to_nobody_whom_it_was_not_given_for(credentials: pb.Credentials) -> None:
    before = pb.Definition(http=pb.HttpDestination(url="https://a.example.com/${id}?x=1", credentials=credentials))
    for url in ("https://a.example.com", "https://A.example.com/other/path", "https://a.example.com?y#z"):
        given = blank(before)
        given.http.url = url
        kept = with_kept(given, before)
        assert (kept.http.url, kept.http.credentials) == (url, credentials)
    given = blank(before)
    field = str(credentials.WhichOneof("kind"))
    for url in (
        "https://b.example.com/${id}?x=1", "http://a.example.com/", "https://a.example.com:8443/", "", "https://a.example.c",
        "https://a.example.com.b.example/", "https://a.example.com@b.example/", r"https://b.example\@a.example.com/",
    ):  # fmt: skip
        given.http.url = url
        with pytest.raises(BackhaulError) as caught:
            with_kept(given, before)
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert [one.field.split(".")[3] for one in caught.value.violations] == [field]
        assert SECRET not in str(caught.value.violations)
    again = pb.Definition(http=pb.HttpDestination(url="https://b.example.com/", credentials=credentials))
    assert with_kept(again, before) == again


def test_nor_is_the_secret_of_a_client_shown_to_another_server_of_tokens() -> None:
    oauth = pb.OAuthCredentials(token_url="https://id.example.com/t", client_id="us", client_secret=SECRET)
    before = showing(oauth=oauth)
    given = blank(before)
    given.http.credentials.oauth.token_url = "https://id.example.com/other"
    assert with_kept(given, before).http.credentials.oauth.client_secret == SECRET
    given.http.credentials.oauth.token_url = "https://id.example.org/t"
    with pytest.raises(BackhaulError) as caught:
        with_kept(given, before)
    assert [one.field for one in caught.value.violations] == ["definition.http.credentials.oauth.client_secret"]


def test_the_key_of_a_certificate_never_leaves_and_is_kept_for_any_address() -> None:
    before = showing(mutual_tls=pb.MutualTls(certificate="c", private_key=SECRET))
    given = blank(before)
    given.http.url = "https://elsewhere.example.com/"
    assert with_kept(given, before).http.credentials.mutual_tls.private_key == SECRET


def test_what_only_a_newer_version_knows_is_not_taken_for_something_else() -> None:
    made = checked(definition(filter=pb.Filter(kinds=[EVENT_KIND_DELIVERED])), door_check)
    document = stored.document_of(made)
    row = row_of(document)
    found = stored.read({**row, "tomorrows": 1, "definition": {**document, "tomorrows": {"a": 1}}})
    assert (found.definition, found.policy.kind) == (made, PolicyKind.STANDARD)
    for changed in (
        {"filter": {"kinds": ["EVENT_KIND_DELIVERED", "EVENT_KIND_TOMORROWS"]}},
        {"policy": {"kind": "POLICY_KIND_TOMORROWS"}},
        {"ordering": "ORDERING_TOMORROWS"},
        {"payload": {"form": "PAYLOAD_FORM_TOMORROWS"}},
        {"policy": {"kind": "POLICY_KIND_CUSTOM", "timeout_s": 999}},
        {"types": 5},
    ):
        with pytest.raises(ValidationError):
            stored.read({**row, "definition": {**document, **changed}})
    others: tuple[dict[str, Any], ...] = ({"definition": "x"}, {"state": "x"}, {"secrets": [{}]}, {"revision": "x"})
    for other in others:
        with pytest.raises(ValidationError):
            stored.read({**row, **other})
