"""Get a data set: download (or take from a folder), unpack, check, and only then let it appear under its name.

Everything happens in ROOT/.fetch/NAME, on the same disk as the result; the last step is one rename. What is stopped or goes
wrong leaves downloads there, to go on with, and never half a data set.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from fewshot.cache import atomic_write
from fewshot.data.benchmarks import locate, sha256, table_of
from fewshot.data.catalogue import Download, Entry, entry
from fewshot.data.check import State, check, split_fault
from fewshot.data.download import disk_error, download
from fewshot.data.places import Place, data_roots, find_place, split_file
from fewshot.data.splits import read_split
from fewshot.data.unpack import Damaged, is_archive, unpack
from fewshot.errors import FewshotError
from fewshot.paths import path_of


def fetch(
    name: str,
    root: str | os.PathLike | None = None,
    source: str | os.PathLike | None = None,
    keep: bool = False,
    **how,
) -> State:
    """Put a data set below root (default: the first data root) and return its checked state; nothing to do if it is there.

    source: a folder with the files that were downloaded by hand, or one archive, also of a copy with other folders in it.
    keep: leave the downloads in ROOT/.fetch/NAME. how: timeout, tries and wait of fewshot.data.download.
    Where only the split file is missing, only that is fetched.
    Raises FewshotError, one sentence, for whatever stands in the way; then nothing has changed below root.
    """
    one = entry(name)
    state = check(one.key, root)
    if state.ok:
        return state
    roots = data_roots(root)
    source = None if source is None else path_of(source)
    if source is not None and not source.exists():
        raise FewshotError(f"there is no file or folder {source}.")
    with _workshop(one, roots[0]) as workshop:
        if state.place is not None and _needs_split(one, state.place, roots):
            split = _split(one, workshop, source, how)
            _refuse_incomplete(one, state.place, split)
            _put(split, state.place.folder / one.split.file)
        else:
            _install(one, roots[0], workshop, source, how)
        if not keep:
            shutil.rmtree(workshop, ignore_errors=True)
    state = check(one.key, root)
    if not state.ok:
        raise FewshotError(state.sentence)
    return state


def _install(one: Entry, root: Path, workshop: Path, source: Path | None, how: dict) -> None:
    target = root / one.layouts[0].folder
    if target.exists() and any(target.iterdir()):
        raise FewshotError(
            f"{target} is there but not complete ({check(one.key, root).sentence.rstrip('.')}); move it away, or put in what "
            "is missing."
        )
    stage = workshop / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    built = stage / one.layouts[0].folder
    built.mkdir(parents=True)
    try:
        given = _given(one, source)
        own_split = one.split is not None and source is not None and _names(source, one.split.file)
        if source is None or given or own_split:
            _from_archives(one, given, built, stage, workshop, source, how)
        elif source.is_file():
            _from_copy(one, source, stage)
        else:
            names = ", ".join(file.file for file in one.archives)
            raise FewshotError(f"{source} holds none of {names}; name the file itself if it is called otherwise.")
        place = find_place(one, [stage])
        if place is None:
            raise Damaged(f"what was unpacked is not {one.title}: it has no folder {one.layouts[0].images}.")
        if _needs_split(one, place, []) or (
            one.split and one.split.addresses and split_fault(one, split_file(one, place))
        ):
            _put(_split(one, workshop, source, how), place.folder / one.split.file)
        state = check(one.key, stage)
        if not state.ok:
            raise Damaged(f"what was unpacked is not {one.title}: {state.sentence.replace(str(stage), '...')}")
        if target.exists():
            target.rmdir()
        os.rename(built, target)
    except Damaged:
        for file in one.archives:
            if not file.known_hash:  # the others are what they should be
                (workshop / file.file).unlink(missing_ok=True)
        raise
    except OSError as error:
        raise disk_error(error, root) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _from_archives(one: Entry, given, built: Path, stage: Path, workshop: Path, source: Path | None, how: dict) -> None:
    """Download what is not given, check its hash, and put together the folder as CoOp's layout has it."""
    wanted = [file for file in one.archives if not file.optional or file.addresses or file.file in given]
    lacking = [file for file in wanted if file.file not in given and not file.addresses]
    if lacking:
        names = " and ".join(file.file for file in lacking)
        where = f"{source} does not hold {names}" if source else f"{names} cannot be downloaded from here"
        raise FewshotError(
            f"{where}: `fewshot data list {one.key}` says where else {one.title} is, and `fewshot data fetch {one.key} "
            "--from FOLDER` goes on with it."
        )
    _enough_room(one, wanted, given, workshop)
    files = {file.file: given.get(file.file) or download(file, workshop, **how) for file in wanted}
    for file in wanted:
        if file.file in given and one.reader != "imagenet":
            _same_hash(file, files[file.file])
    if one.reader == "imagenet":
        return _sort_imagenet(files, built)
    for file in wanted:
        _place(file, files[file.file], built, stage / "unpacked")


def _place(file: Download, path: Path, built: Path, scratch: Path) -> None:
    """The contents of one downloaded file, moved to where they belong."""
    into = built / file.into
    into.mkdir(parents=True, exist_ok=True)
    if not is_archive(path):
        shutil.copyfile(path, into / file.file)
        return
    unpack(path, scratch)
    if file.inner:
        inner = scratch / file.inner.file
        if not inner.is_file():
            raise Damaged(f"{path} does not hold {file.inner.file}.")
        _same_hash(file.inner, inner)
        return _place(Download(inner.name, into=file.into), inner, built, scratch.with_name("inner"))
    folders = [scratch] if file.take == "." else sorted(scratch.glob(file.take))
    if len(folders) != 1 or not folders[0].is_dir():
        raise Damaged(f"{path} does not hold the folder {file.take}.")
    for child in folders[0].iterdir():
        os.rename(child, into / child.name)
    shutil.rmtree(scratch)


def _from_copy(one: Entry, archive: Path, stage: Path) -> None:
    """An archive that is none of the official files: the first folder in it that looks like one of the layouts."""
    scratch = stage / "unpacked"
    unpack(archive, scratch)
    for candidate in (scratch, *sorted(p for p in (*scratch.glob("*"), *scratch.glob("*/*")) if p.is_dir())):
        for layout in one.layouts:
            top = candidate / layout.folder
            for folder in (top, candidate):
                there = (folder / layout.images).is_dir() and all((folder / name).exists() for name in layout.needs)
                if there and (layout.images != "." or layout.needs):
                    built = stage / one.layouts[0].folder
                    built.rmdir()
                    os.rename(folder, built)
                    return
    raise FewshotError(
        f"{archive} holds none of the folders in which {one.title} is known; `fewshot data list {one.key}` names them."
    )


def _sort_imagenet(files: dict[str, Path], built: Path) -> None:
    """The three official files to train/WNID and val/WNID, by torchvision, which also checks their hashes."""
    from torchvision.datasets import ImageNet

    top = built / "images"
    top.mkdir()
    for name, path in files.items():
        os.symlink(path.resolve(), top / name)
    try:
        for part in ("train", "val"):
            ImageNet(top, part)
    except (RuntimeError, FileNotFoundError, tarfile.TarError) as error:
        raise FewshotError(f"torchvision cannot sort these files: {str(error).splitlines()[0].rstrip('.')}.") from error
    for name in (*files, "meta.bin"):
        (top / name).unlink()


def _needs_split(one: Entry, place: Place, roots: list[Path]) -> bool:
    """Is there a split file to be had, and none here?"""
    return bool(one.split and one.split.addresses) and split_file(one, place, roots) is None


def _split(one: Entry, workshop: Path, source: Path | None, how: dict) -> Path:
    """The right split file, given or downloaded."""
    given = source / one.split.file if source is not None and source.is_dir() else source
    own = given is None or given.name != one.split.file or not given.is_file()
    file = download(one.split, workshop, **how) if own else given
    if fault := split_fault(one, file):
        if own:
            file.unlink()
        raise FewshotError(fault[1])
    return file


def _put(file: Path, target: Path) -> None:
    try:
        with atomic_write(target) as partial:
            shutil.copyfile(file, partial)
    except OSError as error:
        raise disk_error(error, target.parent) from error


def _refuse_incomplete(one: Entry, place: Place, split: Path) -> None:
    """FewshotError when pictures of the split are not at this place: a split file would make it look like a data set."""
    table = table_of(read_split(split))
    if missing := locate(one, place, table)[1]:
        raise FewshotError(
            f"{place.images} is there but not complete ({len(missing):,} pictures of {one.key} are missing, the first is "
            f"{missing[0]}); move {place.folder} away, or put in what is missing."
        )


def _names(source: Path, name: str) -> bool:
    """Is `source` the file of this name, or a folder that holds it?"""
    return source.name == name or (source / name).is_file()


def _given(one: Entry, source: Path | None) -> dict[str, Path]:
    """{file name: path} of the official files in `source`; a browser's "name (1).zip" counts too."""
    if source is None:
        return {}
    here = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    found = {}
    for file in one.archives:
        stem, dot, suffix = file.file.partition(".")
        match = [path for path in here if path.name == file.file or fnmatch(path.name, f"{stem} ([0-9]){dot}{suffix}")]
        if match:
            found[file.file] = match[0]
    return found


def _same_hash(file: Download, path: Path) -> None:
    if file.sha256 and (found := sha256(path)) != file.sha256:
        raise FewshotError(
            f"{path} is not the official {Path(file.file).name}: its sha256 begins with {found[:12]}, not with "
            f"{file.sha256[:12]}; download it again."
        )


def _enough_room(one: Entry, wanted: list[Download], given: dict[str, Path], workshop: Path) -> None:
    """Nothing starts that cannot finish: the downloads and what they unpack to must fit."""
    there = sum(path.stat().st_size for path in workshop.iterdir() if path.is_file())
    unpacked = 1.1 * sum(given[file.file].stat().st_size if file.file in given else file.size or 0 for file in wanted)
    need = unpacked + sum(file.size or 0 for file in wanted if file.file not in given) - there
    free = shutil.disk_usage(workshop).free
    if need > free:
        raise FewshotError(
            f"{one.key} needs about {need / 1e9:.1f} GB in {workshop.parent.parent}, and {free / 1e9:.1f} GB are free; make "
            "room, or name another disk with --root."
        )


@contextmanager
def _workshop(one: Entry, root: Path) -> Iterator[Path]:
    """ROOT/.fetch/NAME, for one process at a time."""
    from filelock import FileLock, Timeout

    folder = root / ".fetch" / one.key
    lock = FileLock(f"{folder}.lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise FewshotError(f"another process is fetching {one.key} into {root} right now; wait for it.") from error
    except OSError as error:
        raise FewshotError(
            f"{root} cannot be written to ({error.strerror}); name another folder with --root."
        ) from error
    try:
        yield folder
    finally:
        with suppress(OSError):  # downloads that wait there stay
            folder.rmdir()
        lock.release()
