"""CoCoOp: the image-dependent vector, the prompts and classifiers it makes, three steps."""

import torch
from golden import train

from fewshot.clip import unit
from fewshot.methods.cocoop import CoCoOp

FOLDERS = ("cocoop*",)
LAYERS = ("linear1", "linear2")


def check(golden):
    clip, given = golden.clip, golden.meta["hyperparameters"]
    optimizer = given["optimizer"]
    config = CoCoOp.Config(
        n_ctx=given["n_ctx"], ctx_init=given["ctx_init"] or "", lr=optimizer["lr"],
        weight_decay=optimizer["weight_decay"],
    )  # fmt: skip
    model = CoCoOp(clip, golden.task(), config)
    if config.ctx_init:
        golden.close("init.ctx", model.ctx)
    names = {"ctx": lambda read: read(model.ctx)}
    for layer in LAYERS:
        for part in ("weight", "bias"):
            names[f"meta_net.{layer}.{part}"] = lambda read, a=layer, b=part: read(getattr(getattr(model, a), b))
    assert sorted(names) == sorted(golden.meta["learnable"])
    for name, read in names.items():
        assert read(lambda p: p.shape) == golden.tensors[f"init.{name}"].shape, name
        read(lambda p: p.data).copy_(golden.given(f"init.{name}"))
    model.eval()

    features = clip.encode_image(golden.images)
    f = unit(features)
    golden.close("image_features.eval", f)
    prompts, length = model.prompts, model.prompts.tokens.shape[1]
    words = config.ctx_init or " ".join(["X"] * config.n_ctx)
    tokens = clip.tokenize([f"{words} {n.replace('_', ' ')}." for n in golden.classnames])
    golden.equal("tokenized_prompts", tokens)
    assert torch.equal(prompts.tokens, tokens[:, :length])
    shift = model.shift(f)
    golden.close("meta_net_bias.eval", shift)
    tail = clip.text.embed(tokens)[:, length:]  # what the cut leaves away: padding
    golden.close("prompts.eval_image0", torch.cat((prompts.splice((model.ctx + shift[0]).unsqueeze(0)), tail), dim=1))
    golden.close("text_features.eval", unit(model.text_features(f)))
    golden.close("logits.eval", model.logits(features))
    with torch.no_grad():  # in groups of images
        golden.close("logits.eval", model.logits(features))

    sgd = model.optimizer()
    settings = sgd.param_groups[0]
    for name in ("momentum", "weight_decay", "dampening", "nesterov"):
        assert settings[name] == optimizer[name], name
    assert CoCoOp.Config().weight_decay == optimizer["weight_decay"]
    train(golden, model, clip.encode_image, names, optimizer=sgd)
    golden.close("logits.final", model.logits(features))
