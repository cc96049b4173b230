"""Places for calls that last."""

from __future__ import annotations

import pytest
from backhaul_common.errors import BackhaulError, Code
from backhaul_common.places import Places


def test_a_tenant_has_so_many_and_leaves_the_rest_to_others() -> None:
    places = Places("exports", of_tenant=2, of_all=3)
    with places.taken("acme.1"), places.taken("acme.1"):
        with pytest.raises(BackhaulError, match="The tenant has 2 exports already") as refused, places.taken("acme.1"):
            pass
        assert (refused.value.code, refused.value.retry_after_s) == (Code.RATE_LIMITED, 10)
        with (
            places.taken("globex.1"),
            pytest.raises(BackhaulError, match="There are 3 exports already"),
            places.taken("initech.1"),
        ):
            pass
        with places.taken("initech.1"):
            pass


def test_a_place_is_free_again_whatever_ended_the_call() -> None:
    places = Places("exports", of_tenant=1, of_all=1)
    with pytest.raises(ValueError, match="over"), places.taken("acme.1"):
        raise ValueError("over")
    with places.taken("acme.1"):
        pass
