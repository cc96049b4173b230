"""Fixtures that make something once for all tests that use it: when those run, and when it ends."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

import pytest

_SCOPES = "backhaul/scopes"


class Keeping:
    """A plugin of pytest. The tests of each kept fixture run one after another, and it ends with the last of them.

    Otherwise it would go on until the session's end: a whole stack has nine processes, and takes a tenth of a core for
    nothing.
    """

    def __init__(self, names: Collection[str], *, start_s: float) -> None:
        """``names`` are those of the fixtures, of which a test uses one at most; the first test of each may take
        ``start_s`` longer."""
        self._names = tuple(names)
        self._start_s = start_s
        self._made: dict[str, tuple[pytest.FixtureDef[Any], pytest.FixtureRequest]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        items.sort(key=self._kept_by)  # Those that use none come first; otherwise the order stays.
        first = {self._kept_by(item): item for item in reversed(items)}
        for name, item in first.items():
            if name:
                own = item.get_closest_marker("timeout")
                limit = float(own.args[0] if own else config.getini("timeout"))
                item.add_marker(pytest.mark.timeout(limit + self._start_s), append=False)
        # Let pytest-xdist know which tests are of one kept fixture.
        if getattr(config, "workerinput", {}).get("workerid") == "gw0" and config.cache is not None:
            kept = {item.nodeid: self._kept_by(item) for item in items}
            config.cache.set(_SCOPES, {nodeid: name for nodeid, name in kept.items() if name})

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """With ``--dist loadscope`` the tests of a kept fixture run in one process, and each other test wherever there
        is time. (The groups of pytest-xdist are none with pytest 9.2, which it does not say.)"""
        cache = config.cache
        if config.getvalue("dist") != "loadscope" or cache is None:
            return None
        from xdist.scheduler import LoadScopeScheduling

        @lru_cache(maxsize=1)
        def kept() -> dict[str, str]:
            # It is asked when the processes have collected their tests.
            found: dict[str, str] = cache.get(_SCOPES, {})
            return found

        scheduler = LoadScopeScheduling(config, log)
        scheduler._split_scope = lambda name: kept().get(name, name)
        return scheduler

    @pytest.hookimpl
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
        if fixturedef.argname in self._names:
            self._made[fixturedef.argname] = fixturedef, request

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        try:
            return (yield)
        finally:
            name = self._kept_by(item)
            # At the end of the session pytest ends all that there is.
            if name in self._made and nextitem is not None and self._kept_by(nextitem) != name:
                fixturedef, request = self._made.pop(name)
                fixturedef.finish(request)  # type: ignore[arg-type]  # It is what pytest made for it.

    def _kept_by(self, item: pytest.Item) -> str:
        return next((name for name in getattr(item, "fixturenames", ()) if name in self._names), "")
