"""MaPLe: deep prompts in both encoders, with every projection drawn by itself so that a mixed-up level shows."""

import torch
from golden import train

from fewshot.methods.maple import MaPLe

FOLDERS = ("maple", "maple_*")


def levels(model) -> dict:
    """The fixture's names of our stacked parameters; level 0 has names of its own."""
    names = {}
    for j in range(model.config.prompt_depth):
        prompt, projection = "ctx", "proj"
        if j:
            prompt, projection = f"compound_prompts_text.{j - 1}", f"compound_prompt_projections.{j - 1}"
        names[prompt] = lambda read, j=j: read(model.ctx)[j]
        names[f"{projection}.weight"] = lambda read, j=j: read(model.weight)[j]
        names[f"{projection}.bias"] = lambda read, j=j: read(model.bias)[j]
    return names


def check(golden):
    clip, given, optimizer = golden.clip, golden.meta["hyperparameters"], golden.meta["optimizer"]
    assert given["transformer_layers"] == len(clip.text.blocks)
    assert given["n_deep_prompts"] == given["PROMPT_DEPTH"] - 1
    config = MaPLe.Config(
        n_ctx=given["N_CTX"], ctx_init=given["CTX_INIT"], prompt_depth=given["PROMPT_DEPTH"],
        lr=optimizer["lr"], weight_decay=optimizer["weight_decay"],
    )  # fmt: skip
    model = MaPLe(clip, golden.task(), config)
    golden.close("ctx.official_init", model.ctx[0])
    names = levels(model)
    for name, read in names.items():
        read(lambda p: p.data).copy_(golden.given(f"init.{name}"))
    assert sum(golden.tensors[f"init.{name}"].numel() for name in names) == model.learned()

    tokens = clip.tokenize(golden.meta["prompts"])
    golden.equal("tokens", tokens)
    assert torch.equal(model.prompts.tokens, tokens[:, : model.prompts.tokens.shape[1]])

    def forward(when: str) -> None:
        model.eval()
        with torch.no_grad():
            golden.close(f"text_features.{when}", model.text_features())
            golden.close(f"image_features.{when}", model.image_features(golden.images))
            golden.close(f"logits.{when}", model.logits(golden.images))

    forward("eval")
    sgd = model.optimizer()
    for name in ("momentum", "weight_decay", "nesterov"):
        assert sgd.param_groups[0][name] == optimizer[name], name
    assert MaPLe.Config().weight_decay == optimizer["weight_decay"]
    train(golden, model, lambda x: x, names, optimizer=sgd)
    forward("final")
