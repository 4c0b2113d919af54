"""Another process for work that would keep the API from answering: reading data sets, checking many rows."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from llsflow.errors import UnavailableError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

    from llsflow.store import Store

P = ParamSpec("P")
T = TypeVar("T")


class Aside:
    """Runs functions in processes of its own, made when they are first needed; safe to call from many threads."""

    def __init__(self, processes: int = 2) -> None:
        self.processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function of a module returns, called there; everything travels pickled.

        Raises:
            UnavailableError: the process was killed in the middle, as one is when memory runs out, or the server ends.
        """
        from concurrent.futures.process import BrokenProcessPool

        pool = self._started()
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            with self._lock:
                if self._pool is pool:
                    self._pool = None
            pool.shutdown(wait=False)
            raise UnavailableError("the process that reads rows was killed: memory may have run out") from None
        except CancelledError:
            raise UnavailableError("the server is stopping") from None

    def warm(self) -> None:
        """Start a process in the background, with what it will import."""

        def start() -> None:
            # a server that ends before this is done has nothing to tell
            with contextlib.suppress(UnavailableError, RuntimeError):
                self.run(_import_all)

        threading.Thread(target=start, name="aside-warm", daemon=True).start()

    def close(self) -> None:
        """End the processes; what they do is lost."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            # the pool by itself would wait for what they do
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()

    def _started(self) -> ProcessPoolExecutor:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        with self._lock:
            if self._pool is None:
                spawn = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(self.processes, mp_context=spawn, initializer=_begin)
            return self._pool


_store: Store | None = None


def store_here() -> Store:
    """Return the store of a process aside, opened once."""
    global _store  # noqa: PLW0603 - one store a process
    if _store is None:
        from llsflow.store import Store

        _store = Store.open()
    return _store


def _begin() -> None:
    """End with the process that this one works for, however that ends; leave Ctrl-C to it."""
    import signal
    from multiprocessing import connection, parent_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=follow, name="follow-parent", daemon=True).start()


def _import_all() -> None:
    import llsflow.data.registration  # noqa: F401

    store_here()
