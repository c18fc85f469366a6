"""Archives from strangers: unpacked into one folder and nowhere else.

Member names that leave the folder, and links that point out of it, are refused before they are written; so are devices. A
link that stays inside becomes a copy of its target: no link is ever made, so none can be followed.
"""

from __future__ import annotations

import lzma
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

from fewshot.data.download import disk_error
from fewshot.errors import FewshotError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class Damaged(FewshotError):
    """An archive that is not what it should be, so that keeping it is of no use."""


def is_archive(path: Path) -> bool:
    """By its name: something that unpack takes."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive below `folder`, which is created.

    Raises FewshotError with one sentence: no or a damaged archive, a member that leaves the folder, a device, a password,
    a full disk. Some members may have been written by then, so give it a folder that can be thrown away.
    """
    if not hasattr(tarfile, "data_filter"):
        raise FewshotError("unpacking safely needs Python 3.11.4 or newer.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, folder)
        else:
            raise Damaged(f"{archive} is neither a zip nor a tar archive.")
    except tarfile.FilterError as error:
        raise Damaged(f"{archive} tries to write outside of its folder ({error}), so it is not unpacked.") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, NotImplementedError) as error:
        why = str(error).rstrip(".") or type(error).__name__
        raise Damaged(f"{archive} is damaged ({why}); download it again.") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not archive.exists():
            raise FewshotError(f"there is no file {archive}.") from error
        raise disk_error(error, folder) from error


def _unpack_tar(archive: Path, folder: Path) -> None:
    links = []
    with tarfile.open(archive) as tar, _bar(archive) as bar:
        for member in tar:
            bar.update()
            name = _inside(member.name, archive)
            if _is_litter(name):
                continue
            if member.issym() or member.islnk():
                start = posixpath.dirname(name) if member.issym() else ""
                links.append((name, _inside(member.linkname, archive, start)))
            elif member.isfile() or member.isdir():
                tar.extract(member, folder, filter="data")
            else:
                raise Damaged(f"{archive} holds a device or a pipe ({name}), so it is not unpacked.")
    while ready := [pair for pair in links if (folder / pair[1]).is_file()]:
        for name, target in ready:
            if name != target:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / target, folder / name)
        links = [pair for pair in links if pair not in ready]


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as bundle, _bar(archive, len(bundle.infolist())) as bar:
        members = bundle.infolist()
        for member in members:
            name = _inside(member.filename, archive)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise Damaged(f"{archive} holds a link ({name}), so it is not unpacked.")
            if member.flag_bits & 1:
                raise FewshotError(f"{archive} asks for a password; unpack it by hand.")
        size, free = sum(member.file_size for member in members), shutil.disk_usage(folder).free
        if size > free:
            raise FewshotError(
                f"{archive} unpacks to {size / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free in {folder}."
            )
        for member in members:
            bar.update()
            if not _is_litter(member.filename):
                bundle.extract(member, folder)


def _inside(name: str, archive: Path, start: str = "") -> str:
    """The path that a member's name means, seen from `start`; FewshotError when that is outside of the folder."""
    parts = name.replace("\\", "/")
    path = posixpath.normpath(posixpath.join(start, parts))
    if path.split("/")[0] in ("..", "") or re.match("[A-Za-z]:", parts):  # "": an absolute path
        raise Damaged(f"{archive} tries to write outside of its folder ({name}), so it is not unpacked.")
    return path


def _is_litter(name: str) -> bool:
    """What macOS adds to archives."""
    return "__MACOSX" in name.split("/") or posixpath.basename(name).startswith("._")


def _bar(archive: Path, total: int | None = None):
    from tqdm import tqdm

    return tqdm(total=total, desc=f"unpacking {archive.name}", unit=" files", disable=None)
