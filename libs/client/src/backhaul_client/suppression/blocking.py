"""The blocking client: the asynchronous one on an event loop of its own, in a thread of its own.

So checks of many threads share calls too, and both clients do the same.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator, Sequence
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from backhaul_client.paging import AsyncRows, Rows
from backhaul_client.retries import Retries
from backhaul_client.suppression.base import CHECK_S
from backhaul_client.suppression.client import SuppressionClient
from backhaul_client.suppression.connection import Tls
from backhaul_client.suppression.models import Change, Family, Kind
from backhaul_client.suppression.watching import Watch

P = ParamSpec("P")
T = TypeVar("T")

_END: Any = object()


class _OfThread(SuppressionClient):
    async def _theirs(self, function: Callable[[], T]) -> T:
        # It may block, or call the client: neither goes well on the loop.
        return await asyncio.to_thread(function)


class _Waits(Generic[P, T]):
    """A method of the asynchronous client, waited for."""

    def __init__(self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: BlockingSuppressionClient, owner: type) -> Callable[P, T]: ...
    def __get__(self, client: BlockingSuppressionClient | None, owner: type) -> Any:
        if client is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return client.wait_for(self._method(client.inner, *args, **kwargs))

        return update_wrapper(call, self._method)


class _Iterates(Generic[P, T]):
    """A method of the asynchronous client that iterates. Each step is waited for; ``close()`` ends it early."""

    def __init__(self, method: Callable[Concatenate[Any, P], AsyncIterator[T]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: BlockingSuppressionClient, owner: type) -> Callable[P, Iterator[T]]: ...
    def __get__(self, client: BlockingSuppressionClient | None, owner: type) -> Any:
        if client is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            return client.iterated(self._method(client.inner, *args, **kwargs))

        return update_wrapper(call, self._method)


class _Pages(Generic[P, T]):
    """A method of the asynchronous client that gives rows."""

    def __init__(self, method: Callable[Concatenate[Any, P], AsyncRows[T]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: BlockingSuppressionClient, owner: type) -> Callable[P, Rows[T]]: ...
    def __get__(self, client: BlockingSuppressionClient | None, owner: type) -> Any:
        if client is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> Rows[T]:
            return self._method(client.inner, *args, **kwargs).blocking(client.wait_for)

        return update_wrapper(call, self._method)


class BlockingWatch:
    """``with client.watch("acme", after=position) as changes: for change in changes``. See ``Watch``."""

    def __init__(self, client: BlockingSuppressionClient, watch: Watch) -> None:
        self._client = client
        self._watch = watch

    @property
    def position(self) -> int | None:
        """Behind which to begin the next time."""
        return self._watch.position

    def begun(self) -> None:
        """Return when ``position`` is known."""
        self._client.wait_for(self._watch.begun())

    def __iter__(self) -> Iterator[Change]:
        return self._client.iterated(self._watch)

    def close(self) -> None:
        """End it; also from another thread than the one that waits for the next change."""
        self._client.wait_for(self._watch.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class BlockingSuppressionClient:
    """``with BlockingSuppressionClient("suppression:50052", token=token) as suppression``. May be shared by threads.

    Fork first, then make clients: neither they nor gRPC survive a fork. What was made before raises RuntimeError in the
    child, and so does making one there.
    """

    def __init__(
        self,
        targets: str | Sequence[str],
        *,
        token: str = "",
        tls: Tls | None = None,
        check_timeout_s: float = CHECK_S,
        retries: Retries | None = None,
    ) -> None:
        """See ``SuppressionClient``."""
        self._pid = os.getpid()
        self._closing = threading.Lock()
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that does not close its client must end nevertheless.
        self._thread = threading.Thread(target=self._loop.run_forever, name="suppression-client", daemon=True)
        self._thread.start()

        async def made() -> SuppressionClient:
            return _OfThread(targets, token=token, tls=tls, check_timeout_s=check_timeout_s, retries=retries)

        try:
            self.inner = self.wait_for(made())
        except BaseException:
            self._stop()
            raise

    def __repr__(self) -> str:
        return f"{type(self).__name__}({repr(self.inner).partition('(')[2]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End every call, with an error for whoever waits, and close the connections."""
        with self._closing:
            if self._loop.is_closed() or self._pid != os.getpid():
                return
            self.wait_for(self.inner.close())
            self._stop()

    def wait_for(self, awaitable: Awaitable[T]) -> T:
        """The result of what runs on the client's loop. Whoever is interrupted while waiting has it cancelled."""
        problem = self._unusable()
        if problem:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()
            raise RuntimeError(problem)
        future = asyncio.run_coroutine_threadsafe(_awaited(awaitable), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterated(self, steps: AsyncIterator[T]) -> Iterator[T]:
        """``steps``, each of them waited for."""
        try:
            while (step := self.wait_for(anext(steps, _END))) is not _END:
                yield step
        finally:
            close = getattr(steps, "aclose", None)
            if close is not None and not self._unusable():
                self.wait_for(close())

    check = _Waits(SuppressionClient.check)
    raise_if_suppressed = _Waits(SuppressionClient.raise_if_suppressed)
    check_batch = _Waits(SuppressionClient.check_batch)
    check_stream = _Iterates(SuppressionClient.check_stream)
    add = _Waits(SuppressionClient.add)
    lift = _Waits(SuppressionClient.lift)
    reactivate = _Waits(SuppressionClient.reactivate)
    get = _Waits(SuppressionClient.get)
    history = _Pages(SuppressionClient.history)
    list = _Pages(SuppressionClient.list)
    export = _Iterates(SuppressionClient.export)

    import_list = _Waits(SuppressionClient.import_list)
    export_list = _Waits(SuppressionClient.export_list)

    def watch(
        self,
        tenant_id: str,
        *,
        after: int | None = None,
        family: Family | None = None,
        kinds: Collection[Kind] = (),
    ) -> BlockingWatch:
        """See ``SuppressionClient.watch``."""
        return BlockingWatch(self, self.inner.watch(tenant_id, after=after, family=family, kinds=kinds))

    def _unusable(self) -> str:
        if self._pid != os.getpid():
            return "The client was made before this process was forked: fork first, then make clients."
        if self._loop.is_closed():
            return "The client is closed."
        if threading.current_thread() is self._thread:
            return "The client waits for itself."
        return ""

    def _stop(self) -> None:
        async def end() -> None:
            # On its own loop: the thread that closes the client may have one that runs.
            await self._loop.shutdown_asyncgens()
            await self._loop.shutdown_default_executor()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
