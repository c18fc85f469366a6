"""Image features, computed once: what a frozen encoder makes of a fixed view is a constant, so it is kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from fewshot.cache import atomic_write, cache_dir
from fewshot.data.images import Images
from fewshot.data.views import View, load_batch

FORMAT = 1  # raise it when the meaning of a stored feature changes


def image_features(
    clip,
    images: Images,
    view: View = View(),  # noqa: B008 (frozen)
    *,
    cache: bool = True,
    batch_size: int = 256,
    progress: bool | None = None,
) -> torch.Tensor:
    """Features of all pictures under a view, un-normalised: float32 [N,D] on the CPU.

    Kept in the cache folder, named by the weights, the pictures and the view; a file appears whole or not at all.
    progress: None shows a bar on a terminal only.
    """
    path = _path(clip, images, view) if cache else None
    if path and (stored := _read(path, len(images), clip.embed_dim)) is not None:
        return stored
    features = torch.empty(len(images), clip.embed_dim)
    with (
        torch.no_grad(),
        tqdm(
            total=len(images),
            desc="image features",
            unit="img",
            leave=False,
            disable=None if progress is None else not progress,
        ) as bar,
    ):
        for rows, x in _batches(clip, images, view, batch_size):
            features[rows[0] : rows[-1] + 1] = clip.encode_image(x.to(clip.device)).float().cpu()
            bar.update(len(rows))
    if path:
        with atomic_write(path) as temporary:
            save_file({"features": features}, temporary)
    return features


def _batches(clip, images: Images, view: View, size: int) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """(positions, pictures) in order; the next batch is decoded while this one is encoded."""
    chunks = [np.arange(i, min(i + size, len(images))) for i in range(0, len(images), size)]
    if not chunks:
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(load_batch, images, chunks[0], view, clip)
        for rows, following in zip(chunks, [*chunks[1:], None], strict=True):
            x = coming.result()
            if following is not None:
                coming = pool.submit(load_batch, images, following, view, clip)
            yield rows, x


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
