"""Where things computed once are kept, and how a file appears there: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fewshot.errors import FewshotError
from fewshot.paths import path_of


def cache_dir() -> Path:
    """The cache folder, created on demand: `$FEWSHOT_CACHE`, else the user cache folder of the operating system.

    Raises FewshotError when the folder cannot be created.
    """
    chosen = os.environ.get("FEWSHOT_CACHE")
    if chosen:
        folder = path_of(chosen)
    else:
        import pooch

        folder = Path(pooch.os_cache("fewshot"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FewshotError(
            f"the cache folder {folder} cannot be created ({error.strerror}); set FEWSHOT_CACHE to a writable folder."
        ) from error
    return folder


CACHE_REMEDY = "set FEWSHOT_CACHE to a writable folder with more room"


@contextmanager
def locked(
    path: str | os.PathLike,
    timeout: float = -1,
    remedy: str = CACHE_REMEDY,
    *,
    kind: type[FewshotError] = FewshotError,
    once: bool = False,
    poll: float = 0.05,
) -> Iterator[None]:
    """Hold a lock between processes; the operating system frees it when its holder dies.

    `once` removes its file when the block succeeds: for work that nobody does again, so that whoever held on to the removed
    file finds it done. A lock that is held elsewhere is tried every `poll` seconds. Raises filelock.Timeout after `timeout`
    seconds (-1: never), `kind` where the file cannot be made.
    """
    lock = FileLock(path, timeout=timeout, poll_interval=poll)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise
    except OSError as error:
        raise kind(
            f"{Path(path).parent} cannot be written to ({error.strerror or error}); {remedy}."
        ) from error
    try:
        yield
        if once:
            with suppress(OSError):  # Windows removes no file that is open
                Path(path).unlink()
    finally:
        lock.release()


@contextmanager
def writing(path: str | os.PathLike, remedy: str = "choose another place, or free some space") -> Iterator[Path]:
    """atomic_write, whose failures are one sentence: the file cannot be written, why, and the remedy."""
    from safetensors import SafetensorError  # its word for a full disk

    try:
        if Path(path).is_dir():
            raise FewshotError(f"{path} is a folder; give the name of a file in it.")
        with atomic_write(path) as temporary:
            yield temporary
    except OSError as error:
        raise FewshotError(f"{path} cannot be written ({error.strerror or error}); {remedy}.") from error
    except SafetensorError as error:
        why = " ".join(str(error).split())[:150].rstrip(".")
        raise FewshotError(f"{path} cannot be written ({why}); {remedy}.") from error


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`: on success it is synced and renamed to `path`, on failure it is removed.

    Readers, and other processes that write the same file, only ever see a complete file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not NamedTemporaryFile: the writer opens the path by itself, and the mode should follow the umask, not be 0600.
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=f".tmp{path.suffix}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
