"""CoOp, all context kinds and class-token positions."""

import torch
from golden import train

from fewshot.clip import unit
from fewshot.methods.coop import CoOp

FOLDERS = ("coop_*",)


def settings(golden) -> dict:
    """The optimiser's settings of a prompt method, which its Config takes; the rest is the same for all of them."""
    given = golden.meta["hyperparameters"]["optimizer"]
    assert CoOp.Config().weight_decay == given["weight_decay"]
    return {"lr": given["lr"], "weight_decay": given["weight_decay"]}


def check_forward(golden, model, words: str):
    """Prompts, features and logits of a model whose context stands in the place of `words`; the image features."""
    clip, prompts = golden.clip, model.prompts
    model.ctx.data.copy_(golden.given("init.ctx"))
    model.eval()

    features, length = clip.encode_image(golden.images), prompts.tokens.shape[1]
    golden.close("image_features.eval", unit(features))
    tokens = clip.tokenize([f"{words} {n.replace('_', ' ')}." for n in golden.classnames])
    golden.equal("tokenized_prompts", tokens)
    assert torch.equal(prompts.tokens, tokens[:, :length])
    context = model.ctx if model.own else model.ctx.unsqueeze(-3)
    tail = clip.text.embed(tokens)[:, length:]  # what the cut leaves away: padding
    golden.close("prompts.eval", torch.cat((prompts.splice(context), tail), dim=1))
    golden.close("text_features.eval", unit(model.text_features()))
    golden.close("logits.eval", model.logits(features))
    return features


def optimizer(golden, model) -> torch.optim.Optimizer:
    """The model's own, after a look at its settings."""
    sgd, given = model.optimizer(), golden.meta["hyperparameters"]["optimizer"]
    for name in ("momentum", "weight_decay", "dampening", "nesterov"):
        assert sgd.param_groups[0][name] == given[name], name
    return sgd


def check(golden):
    given = golden.meta["hyperparameters"]
    config = CoOp.Config(
        n_ctx=given["n_ctx"], ctx_init=given["ctx_init"] or "", csc=given["class_specific_context"],
        class_token_position=given["class_token_position"], **settings(golden),
    )  # fmt: skip
    model = CoOp(golden.clip, golden.task(), config)
    if config.ctx_init:
        golden.close("init.ctx", model.ctx)
    features = check_forward(golden, model, config.ctx_init or " ".join(["X"] * config.n_ctx))
    ctx = {"ctx": lambda read: read(model.ctx)}
    train(golden, model, golden.clip.encode_image, ctx, optimizer=optimizer(golden, model))
    golden.close("logits.final", model.logits(features))
