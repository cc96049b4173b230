"""What a tenant may set of a channel's audit files, and what is refused, with a reason."""

from __future__ import annotations

from typing import Any

import pytest
from backhaul_channels import AuditFiles, ChannelSettings, load_adapters
from backhaul_channels.settings import MAX_FOLDER, AuditBucket, AuditKeys
from pydantic import ValidationError

BUCKET = {"endpoint": "https://s3.example.com", "bucket": "acme-audit"}


def asked(**audit: Any) -> AuditFiles | None:
    return ChannelSettings.model_validate({"audit": audit}).audit_files()


def test_a_channel_that_sets_nothing_asks_for_no_files() -> None:
    assert ChannelSettings().audit_files() is None
    assert asked(folder="events/email", gzip=True) is None


def test_what_a_channel_asks_for_goes_through_json() -> None:
    files = asked(enabled=True, folder="events/email_2027", format="array", layout="flat", bucket=BUCKET)
    assert files is not None
    assert AuditFiles.model_validate_json(files.model_dump_json()) == files
    assert files.bucket == AuditBucket(endpoint="https://s3.example.com", bucket="acme-audit")
    assert (files.wants_keys, AuditFiles().wants_keys) == (True, False)


@pytest.mark.parametrize(("provider", "switch"), [("sendgrid", "save_email_events"), ("mpulse", "audit_events")])
def test_a_provider_may_have_a_switch_of_its_own(provider: str, switch: str) -> None:
    model = load_adapters()[provider].settings_model
    assert model.of_stored({}).audit_files() is None
    saved = model.of_stored({switch: True, "audit": {"folder": "email"}}).audit_files()
    assert saved is not None
    assert saved.folder == "email"
    assert model.of_stored({"audit": {"enabled": True}}).audit_files() is not None


@pytest.mark.parametrize(
    "folder",
    [
        *("", "/events", "events/", "a//b", ".", "..", "a/../b", "./a", "a/...", "a b", "a\\b", "a\nb", "ä", "a%2fb"),
        *("events\n", "backfill", "events/backfill", "a" * (MAX_FOLDER + 1)),
    ],
)
def test_a_folder_stays_below_the_tenants_prefix(folder: str) -> None:
    with pytest.raises(ValidationError) as caught:
        asked(enabled=True, folder=folder)
    assert caught.value.errors()[0]["loc"][:1] == ("audit",)


@pytest.mark.parametrize("folder", ["events", "a/b/c", "dt=x", "A-1_b.json", "a.b/..c", "a" * MAX_FOLDER])
def test_a_folder_is_plain_names_with_slashes(folder: str) -> None:
    files = asked(enabled=True, folder=folder)
    assert files is not None
    assert files.folder == folder


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("endpoint", value)
            for value in ("", "s3.example.com", "https://s3.example.com/path", "https://a@b", "ftp://a")
        ),
        *(("endpoint", value) for value in ("https://s3.example.com\n", "https://s3 .example.com", "https://a?x=1")),
        *(("bucket", value) for value in ("", "ab", "Acme", "a/b", "-abc", "abc\n", "a" * 64)),
        *(("region", value) for value in ("eu west", "eu/west", "EU")),
        ("public_endpoint", "files.example.com"),
        ("credentials", "none"),
        ("secret_key", "hidden"),
    ],
)
def test_a_bucket_that_could_be_none_is_refused_by_field(field: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        asked(enabled=True, bucket={**BUCKET, field: value})
    assert caught.value.errors()[0]["loc"] == ("audit", "bucket", field)


def test_what_a_newer_version_wrote_besides_is_ignored() -> None:
    stored = {"audit": {"enabled": True, "newer": 1, "bucket": {**BUCKET, "newer": 1}}}
    files = ChannelSettings.of_stored(stored).audit_files()
    assert files is not None
    assert files.bucket is not None
    keys = AuditKeys.of_stored({"access_key": "a", "secret_key": "hidden", "newer": 1})
    assert keys.secret_key == "hidden"
    assert "hidden" not in repr(keys)


@pytest.mark.parametrize("access_key", ["a\r\nX-Amz-Acl: public-read", "a b", "a\n", "\x00", "é", ""])
def test_an_access_key_that_no_header_can_hold_is_refused(access_key: str) -> None:
    with pytest.raises(ValidationError) as refused:
        AuditKeys(access_key=access_key, secret_key="hidden")
    assert "X-Amz" not in str(refused.value)
