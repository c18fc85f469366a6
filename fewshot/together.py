"""Several small trainings as one: heads on cached features, one for each draw of the pictures and each learning rate.

A step of such a head is a few small products, and most of its time goes into starting them. Here the parameters of all
runs are stacked and every step is made once: `torch.func` maps the method's own loss over the stack, and the method's own
optimiser, which treats every number by itself, moves it. Each run keeps its order of batches, its augmentation, its schedule
and its learning rate, so each goes the way of a run of its own, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from tqdm import tqdm

from fewshot.clip import Clip
from fewshot.errors import FewshotError
from fewshot.methods import get_method
from fewshot.methods.method import Method, make_config, settings_of
from fewshot.select import check_selection, select
from fewshot.training import INTERVAL, batches, check_loss

FREE = ("lr", "weight_decay")  # what the settings may differ in: the optimiser knows it, the loss does not


def fit_together(
    method: str, clip: Clip, tasks: Sequence, settings: Sequence[dict] = ({},), *, selection: str | None = None,
    progress: bool | None = None,
) -> list[list[Method]]:  # fmt: skip
    """Fitted models [task][setting]: what `fit(method, clip, task, **setting)` gives for each, up to rounding.

    `tasks` are draws of one data set at one number of shots (other seeds); `settings` differ in lr and weight_decay at
    most. Raises FewshotError for a method whose training is no small head on features, for tasks or settings that do not go
    together, and what `fit` raises.
    """
    cls = get_method(method)
    selection = check_selection(selection or cls.selection)
    if not cls.head:
        raise FewshotError(f"{cls.title} is no small head that gradient steps train on features; fit its runs one by one.")
    if not tasks or not settings:
        raise FewshotError("fit_together needs one task and one setting at least.")
    tasks = [task.without_test() for task in tasks]
    models = [[cls(clip, task, make_config(cls, setting)) for setting in settings] for task in tasks]
    _check(models, tasks)
    for row, task in zip(models, tasks, strict=True):
        for model in row:
            model.prepare(task.train)
    _train(models, tasks, progress)
    for row, task in zip(models, tasks, strict=True):
        for model in row:
            model.eval()
            select(model, task.val, selection)
    return models


def _check(models: list[list[Method]], tasks: Sequence) -> None:
    first = models[0][0]
    kind = {name: value for name, value in settings_of(first.config).items() if name not in FREE}
    for row, task in zip(models, tasks, strict=True):
        for model in row:
            other = {name: value for name, value in settings_of(model.config).items() if name not in FREE}
            for name in kind:
                if other[name] != kind[name]:
                    raise FewshotError(f"runs that are fitted together differ in {' and '.join(FREE)} alone, not in {name}.")
        if row[0].classnames != first.classnames or len(task.train) != len(tasks[0].train):
            raise FewshotError("tasks that are fitted together have the same classes and as many training pictures.")


class _Loss(nn.Module):
    """A method's loss as the forward pass of a module, which is what functional_call can call."""

    def __init__(self, model: Method) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.model.loss(x, labels)


def _train(models: list[list[Method]], tasks: Sequence, progress: bool | None) -> None:
    """As fewshot.training._train, for a stack [settings, tasks] of models."""
    columns = list(zip(*models, strict=True))  # the models of one setting
    first, loss = models[0][0].train(), _Loss(models[0][0])
    support = tasks[0].train
    size = min(first.config.batch_size, len(support))
    per_epoch = len(support) // size if first.drop_last else -(-len(support) // size)
    steps = first.iterations(per_epoch)
    names = [name for name, _ in first.named_parameters()]
    stacks = [  # one tensor for all tasks of a setting: its optimiser moves them in one go
        {name: torch.stack([model.get_parameter(name).detach() for model in column]).requires_grad_() for name in names}
        for column in columns
    ]
    optimizers = []
    for column, stack in zip(columns, stacks, strict=True):
        optimizer = column[0].optimizer()
        (group,) = optimizer.param_groups
        group["params"] = list(stack.values())
        optimizers.append(optimizer)
    buffers = {name: torch.stack([dict(row[0].named_buffers())[name] for row in models]) for name, _ in first.named_buffers()}

    def one(parameters: dict[str, Tensor], constants: dict[str, Tensor], x: Tensor, labels: Tensor) -> Tensor:
        values = {f"model.{name}": value for name, value in (parameters | constants).items()}
        return functional_call(loss, values, (x, labels))

    each = vmap(vmap(one), in_dims=(0, None, None, None))  # over settings, and over tasks with their batches
    orders = [batches(row[0], task.train, size, per_epoch, steps) for row, task in zip(models, tasks, strict=True)]
    total = torch.zeros(len(columns), len(tasks), device=first.clip.device)
    bar = tqdm(total=steps, desc=first.title, unit="step", leave=False, disable=None if progress is None else not progress)
    with bar:
        for step, batch in enumerate(zip(*orders, strict=True)):
            x, labels = (torch.stack(part) for part in zip(*batch, strict=True))  # [S, B, D], [S, B]
            parameters = {name: torch.stack([stack[name] for stack in stacks]) for name in names}  # [L, S, ..]
            losses = each(parameters, buffers, x, labels)
            for column, optimizer in zip(columns, optimizers, strict=True):
                optimizer.param_groups[0]["lr"] = column[0].lr(step, steps, per_epoch)
                optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()
            for optimizer in optimizers:
                optimizer.step()
            total += losses.detach()
            count = step % INTERVAL + 1
            if count == INTERVAL or step + 1 == steps:
                for column, optimizer, means in zip(columns, optimizers, (total / count).tolist(), strict=True):
                    for model, mean in zip(column, means, strict=True):
                        check_loss(model, mean, step, steps, optimizer)
                        model.history.append(mean)
                total.zero_()
                bar.update(count)
    with torch.no_grad():
        for column, stack in zip(columns, stacks, strict=True):
            for i, model in enumerate(column):
                for name in names:
                    model.get_parameter(name).copy_(stack[name][i])
