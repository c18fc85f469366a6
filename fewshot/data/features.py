"""Image features, computed once: what a frozen encoder makes of a fixed view is a constant, so it is kept on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from fewshot.cache import CACHE_REMEDY, cache_dir, locked, writing
from fewshot.data.images import Images
from fewshot.data.views import View, load_batch
from fewshot.errors import FewshotError

FORMAT = 1  # raise it when the meaning of a stored feature changes
SHARD = 4096  # pictures after which a long pass stores what it has


def image_features(
    clip,
    images: Images,
    view: View = View(),  # noqa: B008 (frozen)
    *,
    cache: bool = True,
    batch_size: int = 256,
    progress: bool | None = None,
) -> torch.Tensor:
    """Features of all pictures under a view, un-normalised: float32 [N,D] on the CPU, memory-mapped when they are kept.

    Kept in the cache folder, named by the weights, the pictures and the view; a file appears whole or not at all. A pass
    that is stopped goes on at the shard of SHARD pictures it was in; of two processes that want the same features one
    computes them and the other waits. progress: None shows a bar on a terminal only.
    """
    if not isinstance(images, Images):
        raise FewshotError(
            f"image_features needs pictures as an Images, such as task.test or from_folder(path).train, not a "
            f"{type(images).__name__}."
        )
    with torch.no_grad(), _bar(len(images), progress) as bar:
        if not cache:
            return _encode(clip, images, view, range(len(images)), batch_size, bar)
        path = _path(clip, images, view)
        if (stored := _read(path, len(images), clip.embed_dim)) is not None:
            return stored
        with locked(path.with_suffix(".lock")):
            if (stored := _read(path, len(images), clip.embed_dim)) is None:
                parts = path.with_suffix(".parts")
                shards = [range(i, min(i + SHARD, len(images))) for i in range(0, len(images), SHARD)]
                found = [_shard(clip, images, view, rows, batch_size, bar, parts) for rows in shards]
                _write(path, torch.cat(found) if found else torch.empty(0, clip.embed_dim))
                shutil.rmtree(parts, ignore_errors=True)
                stored = _read(path, len(images), clip.embed_dim)
        return stored


def _shard(clip, images: Images, view: View, rows: range, size: int, bar: tqdm, parts: Path) -> torch.Tensor:
    """The features of some rows, from the file that an earlier, stopped pass has left of them if there is one."""
    path = parts / f"{rows.start:09d}.safetensors"
    stored = _read(path, len(rows), clip.embed_dim)
    if stored is not None:
        bar.update(len(rows))
        return stored
    features = _encode(clip, images, view, rows, size, bar)
    if len(rows) < len(images):
        _write(path, features)
    return features


def _encode(clip, images: Images, view: View, rows: range, size: int, bar: tqdm) -> torch.Tensor:
    features = torch.empty(len(rows), clip.embed_dim)
    for some, x in _batches(clip, images, view, rows, size):
        features[some.start - rows.start : some.stop - rows.start] = clip.encode_image(x.to(clip.device)).float().cpu()
        bar.update(len(some))
    return features


def _bar(total: int, progress: bool | None) -> tqdm:
    quiet = None if progress is None else not progress
    return tqdm(total=total, desc="image features", unit="img", leave=False, disable=quiet)


def _write(path: Path, features: torch.Tensor) -> None:
    with writing(path, CACHE_REMEDY) as temporary:
        save_file({"features": features}, temporary)


def _batches(clip, images: Images, view: View, rows: range, size: int) -> Iterator[tuple[range, torch.Tensor]]:
    """(positions, pictures) in order; the next batch is decoded while this one is encoded."""
    chunks = [rows[i : i + size] for i in range(0, len(rows), size)]
    if not chunks:
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(load_batch, images, chunks[0], view, clip)
        for some, following in zip(chunks, [*chunks[1:], None], strict=True):
            x = coming.result()
            if following is not None:
                coming = pool.submit(load_batch, images, following, view, clip)
            yield some, x


def _path(clip, images: Images, view: View) -> Path:
    # the device kind is part of the key: features from a GPU differ from a CPU's in the last digits
    key = [
        FORMAT,
        clip.fingerprint,
        clip.image_size,
        list(clip.image_mean),
        list(clip.image_std),
        torch.device(clip.device).type,
        images.fingerprint,
        view.key,
    ]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return cache_dir() / "features" / f"{clip.fingerprint[:16]}-{images.fingerprint}-{view.kind}-{digest}.safetensors"


def _read(path: Path, count: int, width: int) -> torch.Tensor | None:
    """The stored features, or None when there are none to trust."""
    try:
        features = load_file(path)["features"]
    except (OSError, KeyError, SafetensorError):
        return None
    return features if features.shape == (count, width) else None
