"""Each provider's README answers the same questions in the same words."""

from __future__ import annotations

from importlib.resources import files

import pytest
from backhaul_channels import load_adapters

PROVIDERS = files("backhaul_channels.providers")


@pytest.mark.parametrize("provider", sorted(load_adapters()))
def test_a_provider_tells_its_secrets_its_answer_and_what_nobody_has_verified(provider: str) -> None:
    page = PROVIDERS.joinpath(provider, "README.md").read_text("utf-8")
    places = [page.find(part) for part in ("# ", "\n**Secrets**: ", "\n**Answer**: ", "\n## Not verified\n")]
    assert places == sorted(places), places
    assert places[0] == 0, places
