"""Tip-Adapter-F: the trained keys."""

import torch
from check_tip_adapter import fill, settings
from golden import train

from fewshot.methods.tip_adapter_f import TipAdapterF

FOLDERS = ("tip_adapter_f",)


def check(golden):
    given = golden.meta["hyperparameters"]
    config = TipAdapterF.Config(
        **settings(golden), lr=given["lr"], weight_decay=given["weight_decay"], eps=given["eps"]
    )
    model = TipAdapterF(golden.clip, golden.task(), config)
    fill(golden, model)
    golden.close("init.adapter.weight", model.keys)
    features = golden.clip.encode_image(golden.images)
    golden.close("logits.eval", model.logits(features))

    optimizer = model.optimizer()
    settings_used = optimizer.param_groups[0]
    assert settings_used["betas"] == tuple(given["betas"])
    defaults = TipAdapterF.Config()
    assert (defaults.lr, defaults.weight_decay, defaults.eps) == (given["lr"], given["weight_decay"], given["eps"])
    lrs = [model.lr(step, 3, 1) for step in range(3)]
    golden.close("lr.steps", torch.tensor(lrs))
    names = {"adapter.weight": lambda read: read(model.keys)}
    for k, logits in enumerate(train(golden, model, golden.clip.encode_image, names, optimizer=optimizer, lrs=lrs)):
        golden.close(f"logits.step{k}", logits)
    golden.close("logits.final", model.logits(features))
    chosen = model.choose(features, golden.labels)
    golden.close("search.best", torch.tensor([chosen["beta"], chosen["alpha"]]))
    golden.close("logits.final_search_best", model.logits(features))
