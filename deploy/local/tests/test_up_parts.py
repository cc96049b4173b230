"""The parts of `up` that need no process: settings, kept state, the log's printing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from backhaul_local.console import Console, LogFollower
from backhaul_local.errors import SettingError
from backhaul_local.settings import IGNORED, read_settings
from backhaul_local.stack import Credentials, without_credentials
from backhaul_local.state import (
    admin_header_path,
    admin_token_path,
    credentials_path,
    load_credentials,
    running,
    running_path,
)

STORE = "BACKHAUL_OBJECT_STORE_"


def test_flags_win_over_the_environment_and_that_over_defaults(tmp_path: Path) -> None:
    environ = {
        "BACKHAUL_GATEWAY_PORT": "8081",
        "BACKHAUL_NORMALIZER_GRPC_LISTEN": "127.0.0.1:50052",
        "BACKHAUL_LOCAL_PORTS": "nats=4333, mongo=27018",
    }
    ports = read_settings(["--data-dir", str(tmp_path), "--port", "nats=4444"], environ).ports
    assert (ports["gateway_http"], ports["normalizer_grpc"], ports["nats"], ports["mongo"], ports["s3"]) == (
        8081,
        50052,
        4444,
        27018,
        8333,
    )


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"BACKHAUL_LOCAL_PORTS": "natz=1"}, "BACKHAUL_LOCAL_PORTS: there is no port named 'natz'"),
        ({"BACKHAUL_LOCAL_PORTS": "nats"}, "BACKHAUL_LOCAL_PORTS: '' is not a port number"),
        ({"BACKHAUL_GATEWAY_PORT": "65536"}, "BACKHAUL_GATEWAY_PORT: '65536' is not a port number"),
        (
            {"BACKHAUL_LOCAL_START_TIMEOUT_S": "soon"},
            "BACKHAUL_LOCAL_START_TIMEOUT_S: 'soon' is not a number of seconds",
        ),
        ({"BACKHAUL_LOCAL_START_TIMEOUT_S": "0"}, "BACKHAUL_LOCAL_START_TIMEOUT_S: '0' is not a number of seconds"),
        ({"BACKHAUL_LOCAL_START_TIMEOUT_S": "nan"}, "BACKHAUL_LOCAL_START_TIMEOUT_S: 'nan' is not a number of seconds"),
        ({STORE + "ENDPOINT": "http://s3"}, f"{STORE}ACCESS_KEY and {STORE}SECRET_KEY must be too"),
    ],
)
def test_bad_settings_are_named(environ: dict[str, str], problem: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=problem):
        read_settings(["--data-dir", str(tmp_path)], environ).stack_config(Credentials.generate())


def test_how_long_a_start_may_take_is_told_to_all_that_starts(tmp_path: Path) -> None:
    environ = {"BACKHAUL_LOCAL_START_TIMEOUT_S": "300"}
    for flags, seconds in ([], 300.0), (["--start-timeout", "2.5"], 2.5):
        config = read_settings(["--data-dir", str(tmp_path), *flags], environ).stack_config(Credentials.generate())
        assert config.start_timeout == seconds
        assert config.env == {}
    with pytest.raises(SettingError, match="--start-timeout: '' is not"):
        read_settings(["--start-timeout", ""], environ)
    assert read_settings([], {}).start_timeout_s == 90


def test_help_names_the_settings_that_mean_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_settings(["--data-dir", str(tmp_path)], dict.fromkeys(IGNORED, "1")).stack_config(
        Credentials.generate()
    )
    assert not set(IGNORED) & config.env.keys()
    with pytest.raises(SystemExit):
        read_settings(["--help"], {})
    said = capsys.readouterr().out
    assert all(name in said for name in IGNORED)


def test_environment_replaces_kept_credentials_and_servers(tmp_path: Path) -> None:
    environ = {
        "BACKHAUL_GATEWAY_ADMIN_TOKEN": "given",
        "BACKHAUL_SECRET_KEYS": "new, old",
        "BACKHAUL_GATEWAY_PUBLIC_BASE_URL": "https://tunnel.example",
        STORE + "ENDPOINT": "https://s3.example",
        STORE + "ACCESS_KEY": "a",
        STORE + "SECRET_KEY": "s",
        "PATH": "/bin",
    }
    config = read_settings(["--data-dir", str(tmp_path)], environ).stack_config(Credentials.generate())
    assert config.credentials.admin_token == "given"
    assert list(config.credentials.secret_keys) == ["new", "old"]
    assert config.env == {"BACKHAUL_GATEWAY_PUBLIC_BASE_URL": "https://tunnel.example"}
    assert config.base_env == {"PATH": "/bin"}
    assert config.object_store is not None
    assert (config.object_store.endpoint, config.object_store.bucket) == ("https://s3.example", "backhaul")


def test_credentials_are_kept_and_a_damaged_file_is_not_replaced(tmp_path: Path) -> None:
    first = load_credentials(tmp_path / "new")
    again = load_credentials(tmp_path / "new")
    assert (again.admin_token, list(again.secret_keys)) == (first.admin_token, list(first.secret_keys))
    assert admin_token_path(tmp_path / "new").read_text().strip() == first.admin_token
    assert admin_header_path(tmp_path / "new").read_text() == f"Authorization: Bearer {first.admin_token}\n"
    assert first.admin_token not in repr(first)
    credentials_path(tmp_path / "new").write_text("{")
    with pytest.raises(SettingError, match=r"credentials\.json cannot be read"):
        load_credentials(tmp_path / "new")
    assert credentials_path(tmp_path / "new").read_text() == "{"


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/no-folder"])
def test_data_folder_that_cannot_be_used_is_named(where: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=rf"{where} cannot hold the data .*--data-dir"):
        load_credentials(tmp_path / where)


def test_data_folder_that_somebody_else_has_locked_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(SettingError, match=r"cannot hold the data .*--data-dir"), running(tmp_path, {}):
        pass


def test_error_of_what_runs_is_no_error_of_its_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of another kind"), running(tmp_path, {}):
        raise OSError("of another kind")
    assert not running_path(tmp_path).exists()


def test_follower_prints_whole_lines_from_now_on(tmp_path: Path) -> None:
    log, out = tmp_path / "a.log", io.StringIO()
    log.write_text("of an earlier run\n")
    follower = LogFollower(Console(out, width=3), {"a": log, "b": tmp_path / "not-yet.log"})
    with log.open("a") as file:
        file.write("one\ntwo, not")
        file.flush()
        follower.drain()
        assert out.getvalue() == "a   │ one\n"
        file.write(" finished\n")
    follower.drain()
    log.write_text("new\n")  # A rotated log starts again, shorter.
    (tmp_path / "not-yet.log").write_bytes(b"\xff\n")
    follower.drain()
    assert out.getvalue() == "a   │ one\na   │ two, not finished\na   │ new\nb   │ \N{REPLACEMENT CHARACTER}\n"


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = Terminal()
    Console(coloured, width=1).line("a", "text")
    assert coloured.getvalue() == "\x1b[36ma │\x1b[0m text\n"
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    Console(plain, width=1).line("a", "text")
    assert plain.getvalue() == "a │ text\n"


def test_what_cannot_be_seen_is_escaped() -> None:
    """Whatever a server or a service logs, and whoever made it do so."""
    out = io.StringIO()
    Console(out, width=1).line("a", "GET /y\x1b[2J\x1b]0;title\x07 \x9b31m\u202eterces\r\x00 grün ✓")
    assert out.getvalue() == "a │ GET /y\\x1b[2J\\x1b]0;title\\x07 \\x9b31m\\u202eterces\\r\\x00 grün ✓\n"


def test_tls_is_a_switch(tmp_path: Path) -> None:
    for flags, environ, wanted in (
        ([], {}, False),
        (["--tls"], {}, True),
        ([], {"BACKHAUL_LOCAL_TLS": "1"}, True),
        ([], {"BACKHAUL_LOCAL_TLS": "0"}, False),
    ):
        config = read_settings(["--data-dir", str(tmp_path), *flags], environ).stack_config(Credentials.generate())
        assert config.tls is wanted
        assert "BACKHAUL_LOCAL_TLS" not in config.env
    with pytest.raises(SettingError, match="BACKHAUL_LOCAL_TLS: 'yes' is neither 1 nor 0"):
        read_settings([], {"BACKHAUL_LOCAL_TLS": "yes"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://me:word@one:4222", "nats://one:4222"),
        ("nats://me:word@one:4222,nats://me:word@two:4222/", "nats://one:4222,nats://two:4222/"),
        ("mongodb://me:word@one,two/?replicaSet=rs0", "mongodb://one,two/?replicaSet=rs0"),
        ("nats://one:4222", "nats://one:4222"),
    ],
)
def test_no_credentials_of_any_server_are_shown(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
