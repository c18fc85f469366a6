"""From a method's name and a task to a fitted model. The test pictures cannot be reached from here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from tqdm import tqdm

from fewshot.clip import Clip
from fewshot.errors import FewshotError
from fewshot.methods import get_method
from fewshot.methods.method import Method, make_config

INTERVAL = 50  # steps between looks at the loss: each look waits for the device


def fit(
    method: str,
    clip: Clip,
    task,
    *,
    selection: str | None = None,
    seed: int | None = None,
    progress: bool | None = None,
    **config,
) -> Method:
    """Fit a method on the training pictures of a task; returns the model in eval mode.

    `selection`: how hyper-parameters that are chosen and not learned are set: "fixed", "fewval" (on task.val), or None
    for the method's headline choice. `seed` (default: the task's) decides initial values, batch order, augmentation and
    dropout. `progress`: None shows a bar on a terminal only. Everything else is a field of the method's Config.

    Raises FewshotError for an unknown method, setting or selection, an unsupported CLIP, or a loss that is not finite.
    The state of torch's global generators is left as it was.
    """
    from fewshot.select import check_selection, select

    cls = get_method(method)
    settings = make_config(cls, config)
    if not isinstance(clip, Clip) or not hasattr(task, "without_test"):
        raise FewshotError("fit takes a method's name, a CLIP of load_clip, and a task of load_task, in this order.")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise FewshotError(f"seed must be a whole number, not {seed!r}.")
    selection = check_selection(selection or cls.selection)
    task = task.without_test()
    if cls.sees_support and len(task.train) == 0:
        raise FewshotError(f"{task.dataset} has no training pictures; ask for one shot or more.")
    devices = [clip.device] if clip.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        model = cls(clip, task, settings, seed=seed)
        torch.manual_seed(int(torch.randint(2**62, (), generator=model.rng("dropout"))))
        model.prepare(task.train)
        for stage in model.stages() if model.trained else ():
            model.begin(stage)
            _train(model, task.train, progress, stage)
        model.eval()
        select(model, task.val, selection)
    return model


def _train(model: Method, support, progress: bool | None, stage: str = "") -> None:
    """One stage, with an optimiser, a schedule and an order of batches that start afresh."""
    size = min(model.config.batch_size, len(support))
    per_epoch = len(support) // size if model.drop_last else -(-len(support) // size)
    steps = model.iterations(per_epoch)
    optimizer = model.optimizer()
    model.train()
    total = torch.zeros((), device=model.clip.device)
    what = f"{model.title} {stage}".strip()
    bar = tqdm(total=steps, desc=what, unit="step", leave=False, disable=None if progress is None else not progress)
    with bar:
        for step, (x, labels) in enumerate(batches(model, support, size, per_epoch, steps)):
            for group in optimizer.param_groups:
                group["lr"] = model.lr(step, steps, per_epoch)
            optimizer.zero_grad(set_to_none=True)
            total += model.backward(x, labels)
            optimizer.step()
            count = step % INTERVAL + 1
            if count == INTERVAL or step + 1 == steps:
                mean = float(total) / count
                check_loss(model, mean, step, steps, optimizer)
                model.history.append(mean)
                total.zero_()
                bar.update(count)
                bar.set_postfix(loss=f"{mean:.3f}")


def check_loss(model: Method, mean: float, step: int, steps: int, optimizer: torch.optim.Optimizer) -> None:
    """FewshotError when the mean loss up to 0-based step `step` is no number."""
    if not math.isfinite(mean):
        raise FewshotError(
            f"the loss of {model.title} is not finite by step {step + 1} of {steps}; lower lr "
            f"(now {optimizer.defaults['lr']:g})."
        )


def batches(model: Method, support, size: int, per_epoch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` batches (x, labels) in an order of the model's own generator; epoch e sees augmented view e."""
    from fewshot.data.features import image_features
    from fewshot.data.views import View

    clip, config, order = model.clip, model.config, model.rng("batches")
    labels = torch.as_tensor(support.labels).to(clip.device)
    kept: dict[int, Tensor] = {}  # few views: keep them at hand
    with ThreadPoolExecutor(1) as pool:
        for epoch in range(-(-steps // per_epoch)):
            number = epoch if config.views is None else epoch % config.views
            view = View("train", number, model.seed, config.scale)
            rows = torch.randperm(len(support), generator=order).split(size)[
                : min(per_epoch, steps - epoch * per_epoch)
            ]
            if model.needs == "images":
                yield from _pictures(model, support, view, rows, labels, pool, kept if config.views else None)
                continue
            if number not in kept:
                if config.views is None:
                    kept.clear()
                cache = config.views is not None  # a view that comes only once is not worth a file
                kept[number] = image_features(clip, support, view, cache=cache, progress=False).to(clip.device)
            for batch in _on(clip.device, rows):
                yield kept[number][batch], labels[batch]


def _pictures(
    model: Method, support, view, rows: tuple[Tensor, ...], labels: Tensor, pool: ThreadPoolExecutor,
    kept: dict[int, Tensor] | None,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """Augmented pixels; the next batch is drawn while this one trains. `kept` holds whole views, by number."""
    from fewshot.data.views import load_batch

    clip = model.clip
    if kept is not None:
        if view.epoch not in kept:
            kept[view.epoch] = load_batch(support, range(len(support)), view, clip)
        for batch, here in zip(rows, _on(clip.device, rows), strict=True):
            yield kept[view.epoch][batch].to(clip.device), labels[here]
        return
    coming = pool.submit(load_batch, support, rows[0].tolist(), view, clip)
    for i, batch in enumerate(_on(clip.device, rows)):
        x = coming.result()
        if i + 1 < len(rows):
            coming = pool.submit(load_batch, support, rows[i + 1].tolist(), view, clip)
        yield x.to(clip.device, non_blocking=True), labels[batch]


def _on(device: torch.device, rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The batches of an epoch on the device, copied once and not one by one: a copy waits for the device."""
    return torch.cat(rows).to(device).split([len(batch) for batch in rows])
