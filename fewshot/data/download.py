"""One file from the web, complete and with the right hash, or one sentence that says why not.

pooch fetches and checks the hash; the downloader given to it keeps what has arrived in FILE.part, so that a stopped
download goes on where it stopped (HTTP Range), in this call or in the next.
"""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

from fewshot.data.catalogue import Download
from fewshot.errors import FewshotError

CHUNK = 1 << 16
TIMEOUT = (20, 60)  # seconds: to connect, and to wait for the next bytes
TRIES = 4  # connections in a row that bring nothing new


def download(
    file: Download, folder: str | os.PathLike, *, timeout=TIMEOUT, tries: int = TRIES, wait: float = 2.0
) -> Path:
    """The file in `folder`, from the first of its addresses that delivers it; kept when it is there with the right hash.

    timeout: seconds (to connect, between bytes); tries, wait: connections without progress, and the pause before another.
    Raises FewshotError with one sentence: no address, no answer, an HTTP error, a web page instead of the file, a truncated
    or changed file, a full disk. What has arrived of an unfinished file stays beside it as FILE.part.
    """
    import pooch

    folder = Path(folder)
    if not file.addresses:
        raise FewshotError(f"no address of {file.file} is known to work; download it by hand.")
    pooch.get_logger().setLevel("WARNING")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, folder) from error
    faults = []
    for url in file.addresses:
        resume = _Resume(file, folder / f"{file.file}.part", timeout, tries, wait)
        try:
            return Path(pooch.retrieve(url, file.known_hash, file.file, folder, downloader=resume))
        except _Unavailable as error:
            faults.append(str(error))
        except FewshotError:
            raise
        except ValueError as error:  # pooch's word for a wrong hash
            if "hash" not in str(error):
                raise
            faults.append(
                f"{url}: its content has changed or was damaged (another {file.known_hash.partition(':')[0]})"
            )
        except OSError as error:
            raise disk_error(error, folder) from error
    raise FewshotError(
        f"{file.file} cannot be downloaded ({'; '.join(faults)}); what has arrived is kept, try again later."
    )


class _Unavailable(FewshotError):
    """This address does not deliver; the next one may."""


class _Busy(Exception):
    """This address does not deliver now."""


class _Resume:
    """A pooch downloader: url -> output_file by way of a .part file that survives."""

    def __init__(self, file: Download, part: Path, timeout, tries: int, wait: float):
        self.file, self.part, self.timeout, self.tries, self.wait = file, part, timeout, tries, wait
        self.joined = False
        self.note = part.with_name(part.name + ".json")  # which file on which server the part belongs to

    def __call__(self, url: str, output_file, pooch, check_only: bool = False) -> None:
        joined = self._fill(url)
        if joined and self.file.known_hash and not _has_hash(self.part, self.file.known_hash):
            self._forget()  # pieces of two versions of the file
            self._fill(url)
        self.note.unlink(missing_ok=True)
        os.replace(self.part, output_file)

    def _fill(self, url: str) -> bool:
        """Bring the part to its full size; True when it was put together from several connections."""
        import requests

        fault, left, best = "", self.tries, self._size()
        while left:
            try:
                if self._connect(url):
                    return self.joined
                fault = f"the connection broke after {self._size():,} bytes"
            except _Busy as busy:
                fault = str(busy)
            except requests.Timeout:
                fault = f"no answer within {max(self.timeout):g} s"
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                fault = _reason(error, self._size())
            except requests.RequestException as error:
                raise _Unavailable(f"{url}: {str(error).splitlines()[0].rstrip('.')}") from error
            left, best = (self.tries, self._size()) if self._size() > best else (left - 1, best)
            if left:
                time.sleep(self.wait)
        raise _Unavailable(f"{url}: {fault}")

    def _connect(self, url: str) -> bool:
        """One connection: append what comes. True when the file is complete."""
        import requests
        from tqdm import tqdm

        start = self._start(url)
        headers = {"Accept-Encoding": "identity", **self._range(url, start)}
        with requests.get(url, stream=True, headers=headers, timeout=self.timeout) as answer:
            span = answer.headers.get("Content-Range", "")
            if answer.status_code == 416:
                if start and span == f"bytes */{start}":
                    return True
                self._forget()
                return False
            if answer.status_code == 429 or answer.status_code >= 500:
                raise _Busy(f"{answer.status_code} {answer.reason}".rstrip())
            if not answer.ok:
                raise _Unavailable(f"{url}: {answer.status_code} {answer.reason}".rstrip())
            if answer.headers.get("Content-Type", "").startswith("text/html") and not self.file.file.endswith(".html"):
                raise _Unavailable(
                    f"{url}: a web page came instead of the file, as where a login or a quota stands before it"
                )
            if answer.status_code != 206:
                start = 0
            elif not span.startswith(f"bytes {start}-"):  # not what was asked for: next time the whole file
                self._forget()
                return False
            self.joined = self.joined or start > 0
            length = answer.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else None
            if None not in (total, self.file.bytes) and total != self.file.bytes:
                raise _Unavailable(f"{url}: it has {total:,} bytes, not {self.file.bytes:,}, so it is another file")
            self._remember(url, answer)
            with (
                self.part.open("r+b" if start else "wb") as out,
                tqdm(total=total, initial=start, desc=self.file.file, unit="B", unit_scale=True, disable=None) as bar,
            ):
                out.seek(start)
                for chunk in answer.iter_content(CHUNK):
                    out.write(chunk)
                    bar.update(len(chunk))
        return self._size() == total if total is not None else True

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _start(self, url: str) -> int:
        """From which byte on: what is there counts if the hash will tell, or the server's mark of the file is known."""
        return self._size() if self.file.known_hash or self._mark(url) else 0

    def _range(self, url: str, start: int) -> dict[str, str]:
        if not start:
            return {}
        mark = self._mark(url)
        return {"Range": f"bytes={start}-", **({"If-Range": mark} if mark else {})}

    def _mark(self, url: str) -> str | None:
        """The server's ETag or date of the file that the part came from, if it came from this address."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return note["mark"] if note["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _remember(self, url: str, answer) -> None:
        tag = answer.headers.get("ETag", "")
        mark = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
        self.note.write_text(json.dumps({"url": url, "mark": mark}), encoding="utf-8")

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def disk_error(error: OSError, folder: Path) -> FewshotError:
    """The sentence for a file that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free some space (or allow larger files)" if full else "see that it can be written to"
    return FewshotError(
        f"writing to {folder} failed ({error.strerror or error}); {remedy} and run the same command again: it goes on "
        "where it stopped."
    )


def _has_hash(path: Path, known_hash: str) -> bool:
    import pooch

    algorithm, _, digest = known_hash.partition(":")
    return pooch.file_hash(str(path), alg=algorithm) == digest


def _reason(error: Exception, size: int) -> str:
    """Why a connection failed, in a few words."""
    text = str(error)
    if "IncompleteRead" in text or "Connection broken" in text:
        return f"the connection broke after {size:,} bytes"
    if "Read timed out" in text:
        return "no more bytes came"
    for words, reason in (
        ("Name or service not known", "the server's name is unknown"),
        ("Temporary failure in name resolution", "no network, or the server's name is unknown"),
        ("getaddrinfo failed", "no network, or the server's name is unknown"),
        ("Connection refused", "the server refuses connections"),
        ("certificate", "its certificate is not valid"),
    ):
        if words in text:
            return reason
    return "the server cannot be reached"
