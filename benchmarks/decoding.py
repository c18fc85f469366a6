"""How fast do photographs become the input of a ViT-B/16? python benchmarks/decoding.py FOLDER [--pictures N]

Three speeds on one thread and on all cores, in pictures per second: decoding alone (the JPEG file to RGB), decoding and
preprocessing one by one (resize, crop, array), and `load_batch`, which adds normalisation and is what the feature pass does.
A first pass over the files warms the disk cache. Prints a table and one JSON line. Beside the speed stand the milliseconds of
computing per picture (all threads together), which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from fewshot.clip import OPENAI_MEAN, OPENAI_STD
from fewshot.data import ImageFiles, views
from fewshot.data.folders import EXTENSIONS
from fewshot.runs import hardware, versions

BATCH = 64
VIT = SimpleNamespace(image_size=224, image_mean=OPENAI_MEAN, image_std=OPENAI_STD)


def pictures(folder: Path, count: int | None) -> ImageFiles:
    """The pictures below a folder in the order of their names, or `count` of them spread evenly over that order."""
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
    if not paths:
        raise SystemExit(f"there is no picture below {folder}")
    if count and count < len(paths):
        paths = [paths[i * len(paths) // count] for i in range(count)]
    return ImageFiles(folder, paths, [0] * len(paths))


def timed(work: Callable[[], object], count: int) -> dict[str, float]:
    """Pictures per second, and milliseconds of computing per picture."""
    start, computing = time.perf_counter(), time.process_time()
    work()
    seconds, computing = time.perf_counter() - start, time.process_time() - computing
    return {"per_second": round(count / seconds, 1), "cpu_ms": round(1000 * computing / count, 2)}


def each(images: ImageFiles, threads: int, work: Callable[[int], object]) -> None:
    """work(i) for every picture; no result is kept."""
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, range(len(images))):
            pass


def batches(images: ImageFiles, threads: int) -> None:
    """load_batch over all pictures with so many decoding threads."""
    before, views.THREADS = views.THREADS, threads
    try:
        for first in range(0, len(images), BATCH):
            views.load_batch(images, range(first, min(first + BATCH, len(images))), views.View(), VIT)
    finally:
        views.THREADS = before


def measure(images: ImageFiles, cores: int) -> dict:
    """The row: pictures per second, and the mean size of a file and of a picture."""
    megapixels = 0.0
    for i in range(len(images)):
        (images.root / images.paths[i]).read_bytes()
        width, height = images.pil(i).size if i % 20 == 0 else (0, 0)
        megapixels += width * height / 1e6
    steps = {
        "decode": lambda threads: each(images, threads, images.pil),
        "decode, resize, crop": lambda threads: each(
            images, threads, lambda i: views._eval(images.pil(i), VIT.image_size)
        ),
        "load_batch": lambda threads: batches(images, threads),
    }
    speeds = {
        str(threads): {name: timed(partial(step, threads), len(images)) for name, step in steps.items()}
        for threads in dict.fromkeys((1, cores))
    }
    return {
        "benchmark": "decoding",
        "pictures": len(images),
        "megapixels": round(megapixels / len(range(0, len(images), 20)), 3),
        "threads": speeds,
        "load_average": round(os.getloadavg()[0], 1),
        "hardware": hardware(),
        "versions": versions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, metavar="N", help="so many of them (default: all)")
    parser.add_argument("--cores", type=int, default=views.THREADS, metavar="N", help=f"default: {views.THREADS}")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the tensor work of a batch is small
    row = measure(pictures(options.folder, options.pictures), options.cores)
    print(f"{row['pictures']} pictures, {row['megapixels']} megapixels on average; load average {row['load_average']}")
    for threads, speeds in row["threads"].items():
        said = (f"{name} {one['per_second']:.0f}/s ({one['cpu_ms']:.1f} ms)" for name, one in speeds.items())
        print(f"{threads} thread{'s'[: threads != '1']}: {', '.join(said)}")
    print(json.dumps(row, sort_keys=True))


if __name__ == "__main__":
    main()
