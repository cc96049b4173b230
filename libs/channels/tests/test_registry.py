"""Discovery of the provider folders, and what it says of broken ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backhaul_channels import Adapter, MalformedAdapterError, load_adapters
from pydantic import ValidationError

GOOD = """
from backhaul_channels import Adapter

class Good(Adapter):
    provider = {provider!r}
    labels = {labels!r}

    def verifier(self, secrets, settings): raise NotImplementedError
    def split(self, callback, settings): raise NotImplementedError
    def normalize(self, part, context): raise NotImplementedError

ADAPTER = Good()
"""


class Providers:
    """A providers package of its own, in a temporary folder."""

    package = "providers_under_test"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.package
        self.folder.mkdir()
        (self.folder / "__init__.py").touch()

    def add(self, name: str, source: str) -> None:
        (self.folder / name).mkdir()
        (self.folder / name / "__init__.py").write_text(source)


@pytest.fixture
def providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Providers]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Providers(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == Providers.package]:
        del sys.modules[name]


def test_the_providers_of_this_package() -> None:
    adapters = load_adapters()
    assert {"twilio", "sendgrid"} <= set(adapters)
    assert all(adapter.provider == name for name, adapter in adapters.items())


def test_a_new_folder_is_a_new_provider(providers: Providers) -> None:
    providers.add("one", GOOD.format(provider="one", labels=("One",)))
    providers.add("two", GOOD.format(provider="two", labels=("Two", "Deux")))
    providers.add("_private", "")
    assert list(load_adapters(Providers.package)) == ["one", "two"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("", "defines no ADAPTER"),
        ("ADAPTER = 7", "of type int"),
        (GOOD.format(provider="other", labels=("One",)), "must be the folder's name, 'one'"),
        (GOOD.format(provider="one", labels=("",)), "a tuple of non-empty strings"),
        (GOOD.format(provider="one", labels="One"), "must be a tuple"),
        (GOOD.format(provider="one", labels=("One",)) + "ADAPTER.settings_model = dict", "subclass of ChannelSettings"),
        (
            GOOD.format(provider="one", labels=("One",)) + "ADAPTER.own_parameters = frozenset({'bodySHA'})",
            "strings in lower case",
        ),
        (GOOD.format(provider="one", labels=("One",)) + "ADAPTER.own_parameters = 'hash'", "must be a frozenset"),
        (
            GOOD.format(provider="one", labels=("One",)) + "ADAPTER.signature_headers = frozenset({'x-signed'})",
            "bytes in lower case",
        ),
        (GOOD.format(provider="one", labels=("One",)) + "ADAPTER.accepted = 204", "must be an Answer"),
        (GOOD.format(provider="one", labels=("One",)) + "ADAPTER.proof = 'signature'", "must be a Proof"),
        (GOOD.format(provider="one", labels=("One",)) + "ADAPTER.ignores = frozenset({'Is typing'})", "of words"),
        (GOOD.format(provider="one", labels=("One",)) + "ADAPTER.ignores = {'typing'}", "must be a frozenset"),
        (GOOD.format(provider="one", labels=("One",)) + "ADAPTER.puller = object()", "None, or a Puller"),
        (GOOD.format(provider="one", labels=("One",)) + "ADAPTER.once = frozenset({'sent'})", "members of EventKind"),
    ],
)
def test_a_malformed_folder_stops_the_start(providers: Providers, source: str, complaint: str) -> None:
    providers.add("one", source)
    with pytest.raises(MalformedAdapterError, match=complaint) as caught:
        load_adapters(Providers.package)
    assert "providers/one" in str(caught.value)


def test_a_folder_without_init_is_reported_not_skipped(providers: Providers) -> None:
    (providers.folder / "one").mkdir()
    with pytest.raises(MalformedAdapterError, match="defines no ADAPTER"):
        load_adapters(Providers.package)


def test_two_providers_may_offer_one_label(providers: Providers) -> None:
    providers.add("one", GOOD.format(provider="one", labels=("Label",)))
    providers.add("two", GOOD.format(provider="two", labels=("LABEL",)))
    assert list(load_adapters(Providers.package)) == ["one", "two"]


def test_who_signs_nothing_says_what_its_proof_is(providers: Providers) -> None:
    source = GOOD.replace("    def verifier(self, secrets, settings): raise NotImplementedError\n", "")
    providers.add("one", source.format(provider="one", labels=("One",)))
    with pytest.raises(MalformedAdapterError, match="it has no verifier"):
        load_adapters(Providers.package)


def test_a_provider_without_a_verifier_relies_on_the_tenants_credential(providers: Providers) -> None:
    source = GOOD.replace("    def verifier(self, secrets, settings): raise NotImplementedError\n", "")
    source = source.replace("import Adapter", "import Adapter, Proof")
    source = source.replace("    provider = {provider!r}", "    provider = {provider!r}\n    proof = Proof.CREDENTIAL")
    providers.add("one", source.format(provider="one", labels=("One",)))
    assert list(load_adapters(Providers.package)) == ["one"]


@pytest.mark.parametrize("adapter", load_adapters().values(), ids=lambda adapter: adapter.provider)
def test_stored_settings_of_a_newer_version_are_read_as_far_as_they_are_known(adapter: Adapter[Any]) -> None:
    stored = {"communication_keys": ["offer"], "newer": {"a": [1]}}
    assert adapter.settings_model.of_stored(stored) == adapter.settings_model(communication_keys=("offer",))
    with pytest.raises(ValidationError):
        adapter.settings_model.model_validate(stored)
    with pytest.raises(ValidationError):
        adapter.settings_model.of_stored({"communication_keys": 7})
