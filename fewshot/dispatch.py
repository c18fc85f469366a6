"""The runs of a grid on their way: claimed here, computed wherever the executor computes, stored here.

Workers only compute: they are given a run and give back its row, so they need not see the file of rows, and a grid has one
writer. The claim is a lock beside that file, held by the process of the grid until the row is stored: processes that work on
one file share the runs, and what one of them had claimed is free again when it dies. No more runs are claimed than workers
are there to compute them.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from fewshot.errors import FewshotError
from fewshot.rows import Rows, Unwritable
from fewshot.runs import Run

TRANSIENT = (OSError, MemoryError, BrokenExecutor)  # another attempt, elsewhere or later, may succeed
TRANSIENT_ON_A_GPU = ("OutOfMemoryError", "AcceleratorError")  # torch's; by name, because torch is imported late
ROOM = 64  # runs handed at once to an executor that does not say how many workers it has
PAUSE = 0.2  # seconds between two looks at runs that another process has claimed, or for workers that have come


@dataclass(frozen=True)
class Failed:
    """What a run gave instead of a row: why, in one line; the traceback; whether another attempt may help; where it was."""

    why: str
    trace: str
    again: bool
    where: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        lines = str(error).strip().splitlines()
        what = type(error).__name__
        if isinstance(error, BrokenExecutor):
            why = "its worker process died, perhaps for want of memory"
        elif isinstance(error, FewshotError):
            why = str(error)
        else:
            why = f"{what}: {lines[0]}" if lines else what
        again = isinstance(error, TRANSIENT) or what in TRANSIENT_ON_A_GPU
        return cls(why.rstrip("."), "".join(traceback.format_exception(error)), again)


class Gone(FewshotError):
    """The executor is of no further use. `what` happened; `remedy`."""

    def __init__(self, what: str, remedy: str):
        super().__init__(f"{what}; {remedy}.")
        self.what, self.remedy = what, remedy

    def __reduce__(self):
        return Gone, (self.what, self.remedy)


class Unfit(FewshotError):
    """A worker that cannot make any row of this grid, such as one with another version of the package."""


def attempt(one: Run, run_one: Callable[[Run], dict]) -> dict | Failed:
    """What a worker does. Errors come back as text: not every exception can be sent from process to process."""
    try:
        return run_one(one)
    except (Exception, SystemExit) as error:
        return Failed.of(error)


def room(executor: Executor) -> int:
    """How many runs `executor` computes at once, as far as it can be known."""
    own = getattr(executor, "room", None)
    return max(1, own() if own else getattr(executor, "_max_workers", ROOM))


class Dispatch:
    """The runs that are to be made with `executor`; `expected` maps keys to the stamps that count as done."""

    def __init__(
        self,
        runs: Iterable[Run],
        rows: Rows,
        expected: Mapping[str, str | None],
        run_one: Callable[[Run], dict],
        executor: Executor,
        retries: int,
    ):
        self.rows, self.expected, self.run_one, self.executor, self.retries = rows, expected, run_one, executor, retries
        self.waiting = deque(runs)
        self.elsewhere: deque[Run] = deque()  # claimed by another process
        self.flying: dict[Future, tuple[Run, ExitStack]] = {}
        self.failed: dict[str, Failed] = {}
        self.tried: Counter[str] = Counter()  # attempts that failed and were followed by another
        self.places: dict[str, set[str]] = {}  # where they were made

    def results(self, deadline: float | None = None) -> Iterator[Run]:
        """Each run when it is settled: stored (by whomever), or in `failed`. None is started after `deadline`.

        Raises Gone when the executor breaks down for good, Unwritable when rows cannot be stored.
        """
        while self.waiting or self.elsewhere or self.flying:
            if deadline is not None and time.monotonic() >= deadline:
                yield from self.drain()
                return
            yield from self._launch()
            yield from self._collect(PAUSE if self.waiting or self.elsewhere else None)

    def drain(self) -> Iterator[Run]:
        """Start nothing any more; each run under way when it is settled."""
        self.waiting.clear()
        self.elsewhere.clear()
        for future in [future for future in self.flying if future.cancel()]:
            self.flying.pop(future)[1].close()
        if under_way := sum(not future.done() for future in self.flying):
            print(f"waiting for {under_way} runs under way; Ctrl-C again to leave at once", file=sys.stderr)
        while self.flying:
            yield from self._collect(None)

    def counts(self) -> dict[str, int]:
        """What the bar shows."""
        waiting = len(self.waiting) + len(self.elsewhere)
        return {"running": len(self.flying), "waiting": waiting, "failed": len(self.failed)}

    def close(self) -> None:
        """Give up what is left: others may claim it."""
        for future, (_, claim) in self.flying.items():
            future.cancel()
            claim.close()
        self.flying.clear()

    def _launch(self) -> Iterator[Run]:
        if not self.waiting and not self.elsewhere:
            return
        places = room(self.executor)
        while self.waiting and len(self.flying) < places:
            one = self.waiting.popleft()
            if self._start(one):
                yield one
        for _ in range(min(len(self.elsewhere), ROOM)):
            if self.waiting or len(self.flying) >= places:
                return
            one = self.elsewhere.popleft()
            if self._start(one):
                yield one

    def _start(self, one: Run) -> bool:
        """Claim a run and hand it out, or note that another process is on it; True when its row is there already."""
        with ExitStack() as claim:
            try:
                claim.enter_context(self.rows.lock(one.key, timeout=0, once=True))
            except Timeout:
                self.elsewhere.append(one)
                return False
            if self.rows.get(one.key, self.expected.get(one.key)) is not None:
                return True
            avoid = {"avoid": self.places[one.key]} if one.key in self.places else {}
            try:
                future = self.executor.submit(attempt, one, self.run_one, **avoid)
            except BrokenExecutor as error:
                raise _broken() from error
            self.flying[future] = one, claim.pop_all()
        return False

    def _collect(self, timeout: float | None) -> Iterator[Run]:
        if not self.flying:
            if self.elsewhere and not self.waiting:
                time.sleep(PAUSE)
            return
        done, _ = wait(self.flying, timeout, FIRST_COMPLETED)
        for future in done:
            one, claim = self.flying.pop(future)
            with claim:
                settled = self._settle(one, _outcome(future))
            if settled:
                yield one

    def _settle(self, one: Run, outcome: dict | Failed) -> bool:
        """Store the row, or keep the failure; False when the run is to be tried again."""
        if isinstance(outcome, Failed) and outcome.again and self.tried[one.key] < self.retries:
            self.tried[one.key] += 1
            if outcome.where:
                self.places.setdefault(one.key, set()).add(outcome.where)
            self.waiting.append(one)
            print(f"{one} is tried again ({outcome.why})", file=sys.stderr)
            return False
        if not isinstance(outcome, Failed):
            try:
                self.rows.append(outcome)
            except Unwritable:  # what comes after it would be lost as well
                raise
            except Exception as error:
                outcome = Failed.of(error)
        trace = trace_path(self.rows, one)
        if isinstance(outcome, Failed):
            self.failed[one.key] = outcome
            _keep(trace, f"{one}\n{one!r}\nattempts: {1 + self.tried[one.key]}\n\n{outcome.trace}")
        else:
            trace.unlink(missing_ok=True)
        return True


def trace_path(rows: Rows, one: Run) -> Path:
    """Where the traceback of a failed run is kept, beside the file of rows."""
    return rows.path.parent / f"{rows.path.stem}.failed" / f"{one.method}-{one.shots}-{one.seed}-{one.key}.txt"


def _keep(path: Path, text: str) -> None:
    with suppress(OSError):  # on a full disk the sentence at the end has to do
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _outcome(future: Future) -> dict | Failed:
    try:
        return future.result()
    except (Gone, Unfit):
        raise
    except CancelledError as error:  # not by us: those are not waited for
        raise Gone("the executor gave up its runs", "start it again to go on") from error
    except Exception as error:  # of the executor (a dead worker, a run that cannot be sent), not of the run
        return Failed.of(error)


def _broken() -> Gone:
    return Gone("a worker process died", "start it again to go on, with fewer workers if memory ran out")
