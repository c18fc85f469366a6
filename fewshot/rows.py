"""Finished runs as JSON lines: a row is in the file whole, once, or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.cache import locked, writing
from fewshot.errors import FewshotError

SCHEMA = 1
FIRST = ("experiment", "method", "dataset", "shots", "seed", "accuracy", "n_test", "profile", "backbone", "pretrained")
ORDER = ("experiment", "method", "dataset", "shots", "seed", "key")


class Unwritable(FewshotError):
    """A row that could not be stored because of the disk: the next one cannot be either."""


class _Line(NamedTuple):
    """Where a row stands: kept as the bytes of its line, a tenth of what its dictionary would take."""

    text: bytes
    number: int
    stamp: str | None


class Rows:
    """The rows of one file, `Rows("results/x.jsonl")`; the file appears with the first row.

    Several processes (or hosts on a shared disk with POSIX locks) may append to one file. Every look reads only what was
    added since the last one. A last line torn by a kill is ignored, and cut off by the next append.

    Two rows of one key can only differ in their `stamp` (the weights and the full configuration they were made with):
    the later one replaces the earlier, which stays in the file until `tidy()`.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if self.path.is_dir():
            raise FewshotError(
                f"{self.path} is a folder; give the rows a file name such as {self.path / 'rows.jsonl'}."
            )
        self._threads = threading.RLock()
        self._forget()

    def __reduce__(self):
        return Rows, (self.path,)

    def __len__(self) -> int:
        return len(self._look())

    def __contains__(self, key: str) -> bool:
        return key in self._look()

    def keys(self) -> set[str]:
        """The keys of all finished runs."""
        return set(self._look())

    def get(self, key: str, stamp: str | None = None) -> dict | None:
        """The row of `key`, or None; with `stamp` a row made with other weights or another configuration is None too."""
        line = self._look().get(key)
        return None if line is None or (stamp is not None and line.stamp != stamp) else json.loads(line.text)

    def _all(self) -> list[dict]:
        """Every row. Read as one text, so that equal names are one object: a third less memory."""
        lines = [line.text for line in self._look().values()]
        try:
            return json.loads(b"[" + b",".join(lines) + b"]")
        except ValueError:  # an editor has put a byte order mark before the first
            return [json.loads(line) for line in lines]

    def frame(self):
        """All rows as a DataFrame, one line a run; nested fields (config, versions) stay dictionaries."""
        import pandas as pd

        rows = self._all()
        names = list(dict.fromkeys([*FIRST, *(name for row in rows for name in row)]))
        return pd.DataFrame(rows, columns=names)

    def append(self, row: dict) -> None:
        """Store one finished run, durably: when this returns, the row survives a crash.

        Raises FewshotError for a key that is already there with the same stamp, and for numbers that are not finite;
        Unwritable where the file cannot be written.
        """
        line = _line(row)
        with self._threads, self.lock():
            known = self._look().get(row["key"])
            if known is not None and known.stamp == row.get("stamp"):
                raise FewshotError(
                    f"{self.path} already holds the run {row['key']}; a finished run is stored only once."
                )
            fresh = not self.path.exists()
            try:
                self._write(line)
                if fresh:
                    _sync_folder(self.path.parent)
            except OSError as error:
                if fresh:
                    self.path.unlink(missing_ok=True)
                raise Unwritable(
                    f"{self.path} could not take the row ({error.strerror or error}); free some space, or choose a writable "
                    "place for the rows."
                ) from error
            self._look()

    def _write(self, line: bytes) -> None:
        """Add a line behind the last whole row; on failure the file is as it was."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            os.ftruncate(file, self._end)  # what a killed writer left behind the last whole row
            if self._end and not self._tail.endswith(b"\n"):
                line = b"\n" + line
            try:
                os.lseek(file, 0, os.SEEK_END)
                if os.write(file, line) != len(line):
                    raise OSError(errno.ENOSPC, "only part of the row fitted")
                os.fsync(file)
            except OSError:
                os.ftruncate(file, self._end)
                raise
        finally:
            os.close(file)

    def tidy(self) -> None:
        """Rewrite the file sorted by experiment, method, data set, shots and seed, without replaced rows: a small diff."""
        with self._threads, self.lock():
            rows = sorted(self._all(), key=lambda row: [_sortable(row.get(name)) for name in ORDER])
            with writing(self.path) as temporary:
                temporary.write_bytes(b"".join(map(_line, rows)))
            self._forget()

    def lock(self, name: str = "append", timeout: float = -1, once: bool = False) -> AbstractContextManager:
        """An inter-process lock that belongs to this file, see fewshot.cache.locked; Unwritable where it cannot be made."""
        path = self.path.parent / f".{self.path.name}.locks" / name
        poll = 0.002 if name == "append" else 0.05  # seconds: an append is over in milliseconds, a run is not
        remedy = "choose a writable place for the rows"
        return locked(path, timeout, remedy, kind=Unwritable, once=once, poll=poll)

    def _forget(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._end = 0  # bytes read, up to the end of the last whole row
        self._newlines = 0
        self._tail = b""  # the last bytes read, to notice a file rewritten by tidy(), an editor or git

    def _look(self) -> dict[str, _Line]:
        """Read what is new. Returns key -> line."""
        with self._threads:
            try:
                with self.path.open("rb") as file:
                    file.seek(self._end - len(self._tail))
                    if file.read(len(self._tail)) != self._tail:
                        self._forget()
                        file.seek(0)
                    fresh = file.read()
            except FileNotFoundError:
                self._forget()
                return self._lines
            except OSError as error:
                raise FewshotError(
                    f"the rows {self.path} cannot be read ({error.strerror}); choose a readable and writable place."
                ) from error
            *lines, rest = fresh.split(b"\n")
            try:
                for line in lines:
                    self._take(line, line + b"\n")
                if _is_json(rest):  # whole, only its line end is missing; a torn object never parses
                    self._take(rest, rest)
            except FewshotError:
                self._forget()
                raise
            return self._lines

    def _take(self, line: bytes, read: bytes) -> None:
        number = self._newlines + 1
        if line.strip():
            row = self._parse(line, number)
            known = self._lines.pop(row["key"], None)
            if known is not None and known.stamp == row.get("stamp"):
                raise FewshotError(
                    f"{self.path} line {number} repeats the run of line {known.number}; delete one of the two lines."
                )
            self._lines[row["key"]] = _Line(line, number, row.get("stamp"))
        self._newlines += read.count(b"\n")
        self._end += len(read)
        self._tail = (self._tail + read)[-256:]

    def _parse(self, line: bytes, number: int) -> dict:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("key"), str):
            raise FewshotError(
                f"{self.path} line {number} is not a row ({line[:40].decode(errors='replace')!r}); "
                "delete that line or restore the file."
            )
        if row.get("schema", 1) > SCHEMA:
            raise FewshotError(
                f"{self.path} line {number} was written by a newer fewshot (schema {row['schema']}, this one reads {SCHEMA}); "
                "update the package."
            )
        return row


def _line(row: dict) -> bytes:
    if not isinstance(row.get("key"), str):
        raise FewshotError("a row needs its key, the one of the run that made it.")
    row = {"schema": SCHEMA} | row
    try:
        text = json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False, default=_plain)
    except FewshotError:
        raise
    except ValueError as error:
        raise FewshotError(
            f"the run {row['key']} holds a number that is not finite in {_not_finite(row)!r}; it is not stored, lower its lr."
        ) from error
    accuracy = json.loads(text).get("accuracy")
    if isinstance(accuracy, bool) or not isinstance(accuracy, int | float) or not 0 <= accuracy <= 100:
        raise FewshotError(
            f"the run {row['key']} has the accuracy {accuracy!r}; a row needs a percentage from 0 to 100."
        )
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a file name that is no Unicode
        return json.dumps(row, sort_keys=True, allow_nan=False, default=_plain).encode() + b"\n"


def _plain(value: Any):
    """NumPy and torch scalars as Python numbers, paths as text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise FewshotError(
        f"a row cannot hold an object of type {type(value).__name__}; use numbers, text, lists and dictionaries."
    )


def _not_finite(row: dict) -> str:
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            return name
    return "a nested field"


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _sortable(value: Any) -> tuple:
    return (
        value is not None,
        not isinstance(value, int | float),
        value if isinstance(value, int | float) else str(value),
    )


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable too (not possible on Windows, not needed there)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
