"""CLIP-LoRA: which encoders, matrices and layers; three AdamW steps; one layer with explicit dropout masks."""

import pytest
import torch
import torch.nn.functional as F
from golden import train

import fewshot.lora
from fewshot.methods.clip_lora import CLIPLoRA

FOLDERS = ("clip_lora*",)
SIDES = {"text": "transformer.resblocks", "vision": "visual.transformer.resblocks"}


def check(golden):
    clip, given = golden.clip, golden.meta["hyperparameters"]
    layers = {"text": given["layers_text"], "vision": given["layers_vision"]}
    depth = {"text": len(clip.text.blocks), "vision": len(clip.vision.blocks)}
    adapted = [side for side in SIDES if layers[side]]
    assert given["encoder"] == ("both" if len(adapted) == 2 else adapted[0])
    whole = all(layers[side] == list(range(depth[side])) for side in adapted)
    position = "all" if whole else f"top{len(layers[adapted[0]])}"
    config = CLIPLoRA.Config(
        encoder=given["encoder"], params=tuple(given["params"]), position=position, r=given["r"], alpha=given["alpha"],
        dropout=given["dropout"], lr=given["lr"], weight_decay=given["weight_decay"], template=golden.template,
        logit_scale=given["logit_scale"],
    )  # fmt: skip
    model = CLIPLoRA(clip, golden.task(), config)

    names = {}
    for side in adapted:
        lora = getattr(model, side)
        assert lora.layers == layers[side]
        assert lora.scale == pytest.approx(given["scaling"], rel=1e-12)
        for i, layer in enumerate(lora.layers):
            for j, matrix in enumerate(lora.matrices):
                place = "proj" if matrix == "o" else f"{matrix}_proj"
                for which in "AB":
                    key = f"{SIDES[side]}.{layer}.attn.{place}.w_lora_{which}"
                    parameter = getattr(lora, which)
                    parameter.data[i, j].copy_(golden.given(f"init.{key}"))
                    names[key] = lambda read, p=parameter, i=i, j=j: read(p)[i, j]
    a = golden.tensors[f"init.{next(iter(names))}"]
    assert a.abs().max() <= a.shape[1] ** -0.5  # U(-1/sqrt(w), 1/sqrt(w))

    model.eval()
    encode = clip.encode_image if model.needs == "features" else lambda x: x
    with torch.no_grad():  # merged weights, text once
        golden.close("logits.eval", model.logits(encode(golden.images)))
    with torch.enable_grad():  # the same through the branches
        golden.close("logits.eval", model.logits(encode(golden.images)))

    optimizer = model.optimizer()
    settings = optimizer.param_groups[0]
    assert settings["betas"] == tuple(given["betas"])
    assert settings["eps"] == given["eps"]
    assert CLIPLoRA.Config().weight_decay == given["weight_decay"]
    lrs = [model.lr(step, 3, 1) for step in range(3)]
    golden.close("lr.steps", torch.tensor(lrs))
    train(golden, model, encode, names, optimizer=optimizer, lrs=lrs)
    with torch.no_grad():
        golden.close("logits.final", model.logits(encode(golden.images)))
    if "drop.x" in golden:
        check_dropout(golden, given)


def check_dropout(golden, given):
    """One attention layer in training with the masks of the fixture in place of drawn ones."""
    block = golden.clip.vision.blocks[0]
    init = f"init.{SIDES['vision']}.0.attn"
    a, b = (torch.stack([golden.given(f"{init}.{m}_proj.w_lora_{w}") for m in given["params"]]) for w in "AB")
    masks = torch.stack([golden.given(f"drop.mask_{m}").transpose(0, 1) for m in given["params"]])
    p = 0.25
    branch = fewshot.lora.Branch("".join(given["params"]), a, b, given["scaling"], dropout=p)
    x = golden.given("drop.x").transpose(0, 1)  # the fixture is sequence first
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fewshot.lora, "keep", lambda n, flat, dropout: masks.reshape(n, *flat.shape))
        q, k, v = (block.split(t) for t in branch.project(x, block.attn, "qkv"))
    o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
    golden.close("drop.out", branch.out(o, block.attn).transpose(0, 1))
