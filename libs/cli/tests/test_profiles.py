"""Where Backhaul is, and what opens it: a file for its owner alone, and a key goes nowhere but where it belongs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from backhaul_cli.failing import FailedError
from backhaul_cli.profiles import Profile, Profiles, address, chosen, path, read, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ACME = Profile(source="profile acme", url="https://acme.example.com", api_key="bhk_acme")
TEAM = Profile(source="profile team", url="https://team.example.com:8443", admin_token='quote" and \\ too')


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def test_what_was_written_is_read_and_nobody_else_can_read_it(environment: dict[str, str]) -> None:
    file = path(environment)
    before = os.umask(0)
    try:
        write(file, Profiles({}).with_one("acme", ACME).with_one("team", TEAM))
    finally:
        os.umask(before)
    found = read(file)
    assert (dict(found.known), found.current) == ({"acme": ACME, "team": TEAM}, "acme")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    write(file, found.using("team").without("acme"))
    assert (dict(read(file).known), read(file).current) == ({"team": TEAM}, "team")
    assert read(file).without("team").current == ""
    assert [one.name for one in file.parent.iterdir()] == ["config.toml"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(credential=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_any_credential_comes_back_as_it_was(tmp_path: Path, credential: str) -> None:
    file = tmp_path / "config.toml"
    write(file, Profiles({}).with_one("a-b_C", Profile(source="", url="https://a.example.com", api_key=credential)))
    assert read(file).one("a-b_C").api_key == credential


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604])
def test_a_file_that_others_may_open_is_refused_with_the_fix(environment: dict[str, str], mode: int) -> None:
    file = path(environment)
    write(file, Profiles({}).with_one("acme", ACME))
    file.chmod(mode)
    with pytest.raises(FailedError) as refused:
        chosen("", environment)
    assert f"{mode:04o}" in refused.value.what
    assert f"chmod 600 {file}" in refused.value.fix
    assert "bhk_acme" not in refused.value.what + refused.value.fix
    file.chmod(0o600)
    assert chosen("", environment).api_key == "bhk_acme"


def test_a_key_goes_nowhere_but_where_it_belongs(environment: dict[str, str]) -> None:
    write(path(environment), Profiles({}).with_one("acme", ACME).with_one("team", TEAM))
    assert chosen("", environment) == ACME
    elsewhere = {**environment, "BACKHAUL_URL": "https://other.example.com/"}
    assert chosen("", elsewhere) == Profile(source="BACKHAUL_URL", url="https://other.example.com")
    assert chosen("", {**elsewhere, "BACKHAUL_API_KEY": "bhk_other"}).api_key == "bhk_other"
    # Whoever names a profile means all of it.
    assert chosen("team", {**elsewhere, "BACKHAUL_API_KEY": "bhk_other"}) == TEAM
    # A key without an address would go to the current profile's.
    for variable in ("BACKHAUL_API_KEY", "BACKHAUL_ADMIN_TOKEN"):
        with pytest.raises(FailedError, match=f"{variable} is set, and BACKHAUL_URL is not"):
            chosen("", {**environment, variable: "other"})


def test_without_any_it_says_how_to_begin(environment: dict[str, str]) -> None:
    with pytest.raises(FailedError) as refused:
        chosen("", environment)
    assert "backhaul profile add" in refused.value.fix
    with pytest.raises(FailedError, match="no profile 'acme'"):
        chosen("acme", environment)


@pytest.mark.parametrize(
    "content", ["[profiles", "profiles = 1", "[profiles.acme]\nurl = 1", "[profiles]\nacme = 1", "\udcff"]
)
def test_a_file_that_cannot_be_read_is_named(environment: dict[str, str], content: str) -> None:
    file = path(environment)
    write(file, Profiles({}))
    file.write_text(content, errors="surrogateescape")
    with pytest.raises(FailedError, match=r"config\.toml"):
        chosen("acme", environment)


@pytest.mark.parametrize(
    "url",
    ["", "acme", "ftp://a.example.com", "https://", "https://a b", "https://me:secret@a.example.com", "https://a?x=1",
     "https://a.example.com:99999", "https://[::1", "https://a.example.com/\x1b", "https://ä.example.com"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(FailedError) as refused:
        address(url)
    assert "secret" not in refused.value.what + refused.value.fix


def test_credentials_do_not_show_themselves() -> None:
    assert "bhk_acme" not in repr(ACME)
    assert "quote" not in repr(TEAM)
