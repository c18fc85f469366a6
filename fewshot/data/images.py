"""A fixed sequence of labelled pictures, from files or from an array.

A picture is converted to RGB before anything else happens to it. Those of the named data sets are read as they are
stored, as torchvision, open_clip and every few-shot code base do, and so do the published numbers. The user's own are
turned upright as their EXIF orientation says and every viewer shows them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fewshot.errors import FewshotError

_DEEP_MODES = ("I", "F")  # 16- and 32-bit greyscale ("I;16" included): PIL clips them to white in RGB
_FULL_RANGE = ("PNG", "PPM")  # formats whose 16 bits mean 0..65535; a TIFF may hold 12 of them, or heights in metres


class Images:
    """Labelled pictures: `labels` int64 [N] and `ids`, N stable names that augmentation and hashes are keyed by."""

    threads = False  # is it worth decoding several pictures at once?

    def __init__(self, labels: Sequence[int] | np.ndarray, ids: Sequence[str]):
        self.labels = np.array(labels, dtype=np.int64)
        self.ids = tuple(ids)
        if self.labels.shape != (len(self.ids),):
            raise FewshotError(
                f"{len(self.ids)} pictures need as many labels, but the labels have shape {self.labels.shape}."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} pictures, {len(np.unique(self.labels))} classes)"

    def pil(self, i: int) -> Image.Image:
        """Picture i as a PIL image in mode RGB, in its own size."""
        raise NotImplementedError

    def subset(self, indices: Sequence[int] | np.ndarray) -> Images:
        """The pictures at these positions, in this order (a boolean mask [N] works too)."""
        raise NotImplementedError

    def relabel(self, labels: Sequence[int] | np.ndarray) -> Images:
        """The same pictures under other labels [N]."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over ids, labels and content (arrays: the pixels; files: size and modification time)."""
        digest = hashlib.sha256(json.dumps([self.ids, self.labels.tolist()]).encode())
        self._hash_content(digest)
        return digest.hexdigest()[:16]

    def _hash_content(self, digest) -> None:
        raise NotImplementedError

    def _positions(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        indices = np.asarray(indices)
        return np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)


class ImageFiles(Images):
    """Picture files: `paths` relative to `root` are also the ids, unless `ids` says otherwise.

    upright: turn each picture as its EXIF orientation says.
    """

    threads = True  # PIL lets go of the interpreter lock while it decodes

    def __init__(
        self, root: str | Path, paths: Sequence[str], labels, ids: Sequence[str] | None = None, upright: bool = False
    ):
        super().__init__(labels, paths if ids is None else ids)
        self.root, self.upright = Path(root), upright
        self.paths = tuple(str(p) for p in paths)

    def pil(self, i: int) -> Image.Image:
        path = self.root / self.paths[i]
        try:
            with Image.open(path) as picture:
                return rgb(picture, path, self.upright)
        except FewshotError:
            raise
        except Exception as error:  # each format of PIL has its own way to fail
            raise unreadable(path, error) from error

    def subset(self, indices) -> ImageFiles:
        at = self._positions(indices)
        ids = [self.ids[i] for i in at]
        return ImageFiles(self.root, [self.paths[i] for i in at], self.labels[at], ids, self.upright)

    def relabel(self, labels) -> ImageFiles:
        return ImageFiles(self.root, self.paths, labels, self.ids, self.upright)

    def check_headers(self) -> None:
        """Open every file without decoding it; FewshotError for the first that is no usable picture."""
        for name in self.paths:
            path = self.root / name
            try:
                with Image.open(path) as picture:
                    _refuse_deep(picture, path)
            except FewshotError:
                raise
            except Exception as error:
                raise unreadable(path, error) from error

    def _hash_content(self, digest) -> None:
        if self.upright:
            digest.update(b"upright")
        for name in self.paths:
            try:
                stat = (self.root / name).stat()
            except OSError as error:
                raise unreadable(self.root / name, error) from error
            digest.update(f"{stat.st_size},{stat.st_mtime_ns};".encode())


class ImageArrays(Images):
    """Pictures in memory: `pixels` uint8 [N,3,H,W]; ids are the positions when none are given."""

    def __init__(self, pixels: np.ndarray, labels, ids: Sequence[str] | None = None):
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise FewshotError(
                f"pixels must be uint8 [N,3,H,W], not {pixels.dtype} {list(pixels.shape)}; "
                "fewshot.from_arrays converts other layouts."
            )
        super().__init__(labels, [str(i) for i in range(len(pixels))] if ids is None else ids)
        if len(pixels) != len(self.ids):
            raise FewshotError(f"there are {len(pixels)} pictures but {len(self.ids)} ids.")
        self.pixels = pixels

    def pil(self, i: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self.pixels[i].transpose(1, 2, 0)))

    def subset(self, indices) -> ImageArrays:
        at = self._positions(indices)
        return ImageArrays(self.pixels[at], self.labels[at], [self.ids[i] for i in at])

    def relabel(self, labels) -> ImageArrays:
        return ImageArrays(self.pixels, labels, self.ids)

    def _hash_content(self, digest) -> None:
        digest.update(str(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels))


def unreadable(path: Path, error: BaseException) -> FewshotError:
    """The sentence for a file that PIL cannot read."""
    if isinstance(error, FileNotFoundError):
        return FewshotError(f"the picture {path} does not exist; check the path.")
    if isinstance(error, PermissionError):
        return FewshotError(f"the picture {path} may not be read; check its permissions.")
    if isinstance(error, UnidentifiedImageError):
        size = path.stat().st_size
        why = f"{size:,} bytes that are no picture PIL knows" if size else "it is empty (0 bytes)"
    elif isinstance(error, Image.DecompressionBombError):
        why = f"{str(error).partition(' exceeds')[0]} is more than memory may hold"
    else:
        why = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())[:150].rstrip(".")
    return FewshotError(f"the picture {path} cannot be read: {why}; replace or remove it.")


def _deep(picture: Image.Image) -> bool:
    return picture.mode.split(";")[0] in _DEEP_MODES


def _refuse_deep(picture: Image.Image, path) -> None:
    if _deep(picture) and picture.format not in _FULL_RANGE:
        raise FewshotError(
            f"the picture {path} has more than 8 bits per pixel (PIL mode {picture.mode}), which RGB "
            "would clip to white; scale it to 8 bits first."
        )


def rgb(picture: Image.Image, path, upright: bool = False) -> Image.Image:
    """The picture in RGB, of an animation the first frame; FewshotError, naming `path`, where RGB would lose what it shows."""
    _refuse_deep(picture, path)
    deep = _deep(picture)
    if upright:
        picture = _turned(picture)
    if deep:
        picture = Image.fromarray(((np.asarray(picture).astype(np.uint32) + 128) // 257).astype(np.uint8))
    return picture.convert("RGB")


def _turned(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # broken EXIF says nothing about the pixels, and broken pixels say so again
        return picture
