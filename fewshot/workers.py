"""Where the runs of a grid are computed: in this process, in several of this machine, or on a Dask cluster."""

from __future__ import annotations

import gc
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from fewshot.dispatch import Failed, Gone, Unfit
from fewshot.errors import FewshotError
from fewshot.runs import Run, source_digest

CONNECT = 10  # seconds in which a scheduler has to answer
REMEDY = "install the same version there, and start the workers again"


@contextmanager
def engine(executor: Executor | int | str | None) -> Iterator[Executor]:
    """The executor itself; for a number that many processes of this machine, for an address a Dask cluster; else `Here`."""
    if isinstance(executor, Executor):
        yield executor
        return
    if isinstance(executor, str) and executor.strip():
        made = Cluster(executor.strip())
    elif isinstance(executor, int) and executor:
        made = Processes(executor)
    else:
        made = Here()
    with made:
        yield made


class Here(Executor):
    """One run after the other, in this process."""

    def room(self) -> int:
        return 1

    def submit(self, fn: Callable, /, *arguments) -> Future:
        future = Future()
        future.set_result(fn(*arguments))
        return future


class Processes(Executor):
    """`n` processes of this machine, each a pool of its own: one that dies takes its run along, and a new one takes its place.

    Where there are GPUs, the first process uses the first of them, and so on. Raises FewshotError for a negative number.
    """

    def __init__(self, n: int):
        if n < 1:
            raise FewshotError("--workers must be 0 or more.")
        self._n = n
        self._idle: queue.SimpleQueue[tuple[int, ProcessPoolExecutor | None]] = queue.SimpleQueue()
        for place in range(n):
            self._idle.put((place, None))
        self._threads = ThreadPoolExecutor(n)

    def room(self) -> int:
        return self._n

    def submit(self, fn: Callable, /, *arguments) -> Future:
        return self._threads.submit(self._call, fn, *arguments)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        while not self._idle.empty():
            _, pool = self._idle.get()
            if pool is not None:
                pool.shutdown(wait)

    def _call(self, fn: Callable, *arguments):
        place, pool = self._idle.get()
        try:
            if pool is None:
                context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
                pool = ProcessPoolExecutor(1, context, start, (self._n, place))
            outcome = pool.submit(fn, *arguments).result()
        except BrokenExecutor:
            pool = _ended(pool)
            raise
        else:
            if isinstance(outcome, Failed) and outcome.again:  # memory, or a device, that may not recover in that process
                pool = _ended(pool)
            return outcome
        finally:
            self._idle.put((place, pool))


def _ended(pool: ProcessPoolExecutor) -> None:
    pool.shutdown(wait=False)


def start(workers: int, place: int = 0) -> None:
    """In each process: finish the run under way after Ctrl-C, end with the parent, share the cores, and take a GPU."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()

    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())


def end_with_parent() -> None:
    """A worker of an executor would wait for ever for one that was killed."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Cluster(Executor):
    """The workers of the Dask scheduler at `address`, such as tcp://host:8786; one run at a time on each.

    Raises FewshotError when Dask is not installed or no scheduler answers.
    """

    def __init__(self, address: str):
        try:
            from distributed import Client
        except ImportError as error:
            raise FewshotError("a scheduler needs Dask; install it with `pip install '.[cluster]'`.") from error
        self.address = address
        self._theirs: dict[Future, object] = {}
        gc.collect()  # a client that failed before, finalised in the thread that the next one starts, would lock it up
        try:
            self._client = Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
            raise FewshotError(
                f"no Dask scheduler answers at {address} ({_reason(error)}); start one with `dask scheduler`, or check the "
                "address."
            ) from error

    def ready(self, runs: Sequence[Run]) -> None:
        """Look, on every worker that is there, whether it can make these runs; nothing is started otherwise.

        Raises FewshotError for a worker without the package, with other source code, with several threads, or that lacks
        a data set or weights (see fewshot.plan.require).
        """
        threads = self._workers()
        if not threads:
            print(f"no worker has come to {self.address} yet; the runs wait for the first one", file=sys.stderr)
        for worker, count in threads.items():
            if count != 1:
                raise FewshotError(
                    f"the worker {worker} has {count} threads, and runs of one process would disturb each other; start it "
                    "with `dask worker --nthreads 1`, with --nworkers for several."
                )
        for worker, found in self._ask(source_digest).items():
            if isinstance(found, ImportError):
                raise FewshotError(f"the worker {worker} does not have this package ({found}); {REMEDY}.")
            if found != source_digest():
                raise FewshotError(f"the worker {worker} has another version of this package; {REMEDY}.")
        if runs:
            for worker, found in self._ask(_missing, list(runs)).items():
                if found is not None:
                    raise FewshotError(f"on the worker {worker}: {found}")

    def room(self) -> int:
        return len(self._workers())

    def submit(self, fn: Callable, /, *arguments, avoid: set[str] = frozenset()) -> Future:
        """`avoid`: addresses of workers that others are to be preferred to."""
        others = [worker for worker in self._workers() if worker not in avoid] if avoid else []
        where = {"workers": others, "allow_other_workers": True} if others else {}
        mine: Future = Future()
        mine.set_running_or_notify_cancel()  # a worker is free for it, so it is not to be cancelled any more
        try:
            theirs = self._client.submit(_call, source_digest(), fn, *arguments, pure=False, **where)
        except Exception as error:
            if self._client.status != "running":
                raise self._gone() from error
            raise
        self._theirs[mine] = theirs  # Dask forgets what nobody refers to
        theirs.add_done_callback(lambda _: self._pass_on(mine))
        return mine

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._theirs.clear()
        self._client.close(timeout=CONNECT)

    def _pass_on(self, mine: Future) -> None:
        theirs = self._theirs.pop(mine, None)
        if theirs is None:
            return
        if theirs.status == "cancelled":
            mine.set_exception(self._gone())
            return
        try:
            mine.set_result(theirs.result())
        except Exception as error:
            mine.set_exception(error)

    def _workers(self) -> dict[str, int]:
        """Address -> threads of the workers that are there."""
        if self._client.status != "running":
            raise self._gone()
        try:
            return dict(self._client.nthreads())
        except Exception as error:
            raise self._gone() from error

    def _ask(self, question: Callable, *arguments) -> dict:
        """Address -> answer, or the exception that came instead of it."""
        try:
            return self._client.run(question, *arguments, on_error="return")
        except Exception as error:
            raise self._gone() from error

    def _gone(self) -> Gone:
        return Gone(f"the Dask scheduler at {self.address} is gone", "start a scheduler and the grid again to go on")


def _call(expected: str, fn: Callable, *arguments):
    """On a worker, which may have come after `ready`: the outcome, with the worker's address where it failed."""
    from distributed import get_worker

    worker = get_worker().address
    if source_digest() != expected:
        raise Unfit(f"the worker {worker} has another version of this package; {REMEDY}.")
    outcome = fn(*arguments)
    return replace(outcome, where=worker) if isinstance(outcome, Failed) else outcome


async def _missing(runs: list[Run]) -> str | None:
    """On a worker: the sentence of fewshot.plan.require, if any. In a thread, because weights may take a while to load."""
    import asyncio

    from fewshot.plan import require

    try:
        await asyncio.to_thread(require, runs)
    except FewshotError as error:
        return str(error)
    return None


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")[:150] or type(error).__name__
