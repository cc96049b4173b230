"""FastAPI's look at the gateway's routes, once in a process of tests instead of once for each gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from fastapi import routing
from fastapi.dependencies import utils
from fastapi.dependencies.models import Dependant
from fastapi.utils import create_model_field


@contextmanager
def analysed_once() -> Iterator[None]:
    """What FastAPI finds of a function's parameters, and of the model that it answers with, is the same for every
    gateway, and takes a third of a second of processor for all routes, which is most of what a test of the gateway
    takes. Only whose method the function is differs, and is put in."""
    found: WeakKeyDictionary[Any, dict[str, Dependant]] = WeakKeyDictionary()
    analyse = utils.get_dependant

    def get_dependant(*, call: Callable[..., Any], **how: Any) -> Dependant:
        # By the function of a method, which is made anew wherever it is named. What is known of a function that was
        # made within another one goes when that does.
        known = found.setdefault(getattr(call, "__func__", call), {})
        key = repr(how)
        if key not in known:
            known[key] = replace(analyse(call=call, **how), call=None)
        # FastAPI puts what all routes of a router depend on into the list.
        return replace(known[key], call=call, dependencies=[*known[key].dependencies])

    with pytest.MonkeyPatch.context() as patch:
        for module in (utils, routing):
            patch.setattr(module, "get_dependant", get_dependant)
        patch.setattr(routing, "create_model_field", cache(create_model_field))
        yield
