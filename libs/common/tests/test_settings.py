"""Settings: an invalid variable names itself and stops the start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from backhaul_common.settings import (
    CommonSettings,
    MetricsPortSettings,
    ObjectStoreSettings,
    SecretKeySettings,
    load,
)
from cryptography.fernet import Fernet
from pydantic import Field


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BACKHAUL_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_usable() -> None:
    settings = load(CommonSettings)
    assert settings.log_format == "json"
    assert settings.stream_replicas == 1
    with pytest.raises(ValueError, match="frozen"):
        settings.log_format = "console"  # type: ignore[misc]  # that it is refused is the point


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STREAM_REPLICAS", "6"),
        ("STREAM_REPLICAS", "three"),
        ("STREAM_MAX_AGE_S", "0"),
        ("STREAM_MAX_AGE_S", "nan"),
        ("STREAM_MAX_AGE_S", "inf"),
        ("STREAM_MAX_BYTES", "0"),
        ("STREAM_MAX_BYTES", "-2"),
        ("MONGO_DATABASE", "a.b"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("METRICS_PORT", "65536"),
        ("NATS_CREDENTIALS_FILE", "/nowhere/nats.creds"),
        ("SECRET_KEYS_FILE", "/nowhere/keys"),
        ("GRPC_TLS_CA_FILE", "/nowhere/ca.pem"),
    ],
)
def test_an_invalid_variable_names_itself(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"BACKHAUL_{variable}", value)
    with pytest.raises(SystemExit) as caught:
        load(_All)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"BACKHAUL_{variable}: ")


def test_every_invalid_variable_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BACKHAUL_LOG_FORMAT", "xml")
    monkeypatch.setenv("BACKHAUL_METRICS_PORT", "-1")
    with pytest.raises(SystemExit):
        load(_All)
    err = capsys.readouterr().err
    assert "BACKHAUL_LOG_FORMAT" in err
    assert "BACKHAUL_METRICS_PORT" in err


class _All(SecretKeySettings, ObjectStoreSettings, MetricsPortSettings):
    pass


class _WithList(CommonSettings):
    things: list[int] = Field([])


def test_a_list_that_is_no_json_names_its_field(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BACKHAUL_THINGS", "[1,")
    with pytest.raises(SystemExit) as caught:
        load(_WithList)
    assert caught.value.code == 2
    assert "things" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["CERT"], ["KEY"], ["CA"], ["CERT", "KEY"], ["CERT", "CA"], ["KEY", "CA"]])
def test_tls_is_all_or_none(
    given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "some.pem"
    file.touch()
    for part in given:
        monkeypatch.setenv(f"BACKHAUL_GRPC_TLS_{part}_FILE", str(file))
    with pytest.raises(SystemExit) as caught:
        load(CommonSettings)
    assert caught.value.code == 2
    assert "BACKHAUL_GRPC_TLS_CERT_FILE" in capsys.readouterr().err


def test_an_empty_variable_is_an_absent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKHAUL_GRPC_TLS_CERT_FILE", "")
    monkeypatch.setenv("BACKHAUL_STREAM_REPLICAS", "")
    assert load(CommonSettings).stream_replicas == 1


def test_no_key_says_which_variable_and_how_to_make_one() -> None:
    with pytest.raises(ValueError, match=r"BACKHAUL_SECRET_KEYS .*openssl rand"):
        load(SecretKeySettings).encryption_keys()


def test_keys_from_the_variable_and_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    monkeypatch.setenv("BACKHAUL_SECRET_KEYS", f" {keys[0]} ,{keys[1]},")
    settings = load(SecretKeySettings)
    assert settings.encryption_keys() == keys
    assert keys[0] not in repr(settings)
    assert keys[0] not in settings.model_dump_json()

    file = tmp_path / "keys"
    file.write_text(f"{keys[1]}\r\n\n{keys[0]}\n")
    monkeypatch.setenv("BACKHAUL_SECRET_KEYS_FILE", str(file))
    assert load(SecretKeySettings).encryption_keys() == keys[::-1]


def test_the_database_uri_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKHAUL_MONGO_URI", "mongodb://user:hunter2@db/")
    assert "hunter2" not in repr(load(CommonSettings))


@pytest.mark.parametrize("name", ["GATEWAY_OBJECT_STORE_ENDPOINT", "gateway_object_store_endpiont"])
def test_an_old_name_is_refused_in_words(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"BACKHAUL_{name}", "http://127.0.0.1:9000")
    with pytest.raises(SystemExit) as caught:
        load(_All)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"BACKHAUL_{name}: ")
    assert "begin with BACKHAUL_OBJECT_STORE_ now" in line
    # It is nothing to a service that never had it, nor where it is empty.
    load(CommonSettings)
    monkeypatch.setenv(f"BACKHAUL_{name}", "")
    assert load(_All).object_store_endpoint == ""


def test_object_storage_is_whole_or_absent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BACKHAUL_OBJECT_STORE_ENDPOINT", "http://127.0.0.1:9000")
    monkeypatch.setenv("BACKHAUL_OBJECT_STORE_ACCESS_KEY", "key")
    with pytest.raises(SystemExit):
        load(ObjectStoreSettings)
    assert "BACKHAUL_OBJECT_STORE_ENDPOINT needs" in capsys.readouterr().err
    monkeypatch.setenv("BACKHAUL_OBJECT_STORE_SECRET_KEY", "hunter2")
    settings = load(ObjectStoreSettings)
    assert settings.object_store_bucket == "backhaul"
    assert "hunter2" not in repr(settings)


def test_settings_may_be_files_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "BACKHAUL_MONGO_URI").write_text("mongodb://from:a-file@db/\n")
    (tmp_path / "BACKHAUL_LOG_LEVEL").write_text("debug\n")
    (tmp_path / "tls.pem").write_text("whatever else lies there")
    monkeypatch.setenv("BACKHAUL_SETTINGS_DIR", str(tmp_path))
    monkeypatch.setenv("BACKHAUL_LOG_LEVEL", "error")
    settings = load(CommonSettings)
    assert settings.mongo_uri.get_secret_value() == "mongodb://from:a-file@db/"
    assert settings.log_level == "error"


def test_an_invalid_file_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "BACKHAUL_INTERNAL_TOKEN").write_text("hunter2")
    monkeypatch.setenv("BACKHAUL_SETTINGS_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        load(CommonSettings)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("BACKHAUL_INTERNAL_TOKEN: ")
    assert "hunter2" not in said


def test_a_folder_of_settings_that_is_missing_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Otherwise a service would start with defaults in place of its passwords."""
    monkeypatch.setenv("BACKHAUL_SETTINGS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as caught:
        load(CommonSettings)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("BACKHAUL_SETTINGS_DIR: ")


def test_a_file_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "BACKHAUL_MONGO_URI").symlink_to(tmp_path / "gone")  # Also root cannot read it.
    monkeypatch.setenv("BACKHAUL_SETTINGS_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        load(CommonSettings)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("BACKHAUL_MONGO_URI: ")
