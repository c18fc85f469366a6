"""CoOp, all context kinds and class-token positions."""

import torch
from golden import train

from fewshot.clip import unit
from fewshot.methods.coop import CoOp

FOLDERS = ("coop_*",)


def check(golden):
    clip, given = golden.clip, golden.meta["hyperparameters"]
    optimizer = given["optimizer"]
    config = CoOp.Config(
        n_ctx=given["n_ctx"], ctx_init=given["ctx_init"] or "", csc=given["class_specific_context"],
        class_token_position=given["class_token_position"], lr=optimizer["lr"], weight_decay=optimizer["weight_decay"],
    )  # fmt: skip
    model = CoOp(clip, golden.task(), config)
    if config.ctx_init:
        golden.close("init.ctx", model.ctx)
    model.ctx.data.copy_(golden.given("init.ctx"))
    model.eval()

    features = clip.encode_image(golden.images)
    golden.close("image_features.eval", unit(features))
    prompts, length = model.prompts, model.prompts.tokens.shape[1]
    words = config.ctx_init or " ".join(["X"] * config.n_ctx)
    tokens = clip.tokenize([f"{words} {n.replace('_', ' ')}." for n in golden.classnames])
    golden.equal("tokenized_prompts", tokens)
    assert torch.equal(prompts.tokens, tokens[:, :length])
    context = model.ctx if model.own else model.ctx.unsqueeze(-3)
    tail = clip.text.embed(tokens)[:, length:]  # what the cut leaves away: padding
    golden.close("prompts.eval", torch.cat((prompts.splice(context), tail), dim=1))
    golden.close("text_features.eval", unit(model.text_features()))
    golden.close("logits.eval", model.logits(features))

    sgd = model.optimizer()
    settings = sgd.param_groups[0]
    for name in ("momentum", "weight_decay", "dampening", "nesterov"):
        assert settings[name] == optimizer[name], name
    assert CoOp.Config().weight_decay == optimizer["weight_decay"]
    train(golden, model, clip.encode_image, {"ctx": lambda read: read(model.ctx)}, optimizer=sgd)
    golden.close("logits.final", model.logits(features))
