"""Tiny CLIPs with random weights and a tiny task, built in a moment and the same every time."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from fewshot.clip import Clip

TEXT = dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=3)
VIT = dict(image_size=32, patch_size=8, width=64, head_width=32, layers=3)
RESNET = dict(image_size=64, width=8, layers=(1, 1, 1, 1), head_width=32)
NAMES = ("annual crop land", "forest", "Grizzly_bear", "café au lait")


def config(kind: str = "vit", quick_gelu: bool = True, **text) -> dict:
    vision = VIT if kind == "vit" else RESNET
    return dict(embed_dim=32, vision_cfg=vision, text_cfg={**TEXT, **text}, quick_gelu=quick_gelu)


def weights(kind: str = "vit", seed: int = 0, **text) -> dict[str, torch.Tensor]:
    """Random weights at which every part of the model matters (biases and scales too)."""
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.model.CLIP(**config(kind, **text))
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.data += 0.1 * torch.randn_like(p)
            if "embedding" in name:
                p.data = 0.3 * torch.randn_like(p)
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b += 0.1 * torch.randn_like(b)
    state = model.state_dict()
    state["logit_scale"] = torch.tensor(30.0).log()  # not 100, so that a constant and the parameter differ
    return state


@cache
def clip(kind: str = "vit") -> Clip:
    return Clip.from_state_dict(config(kind), weights(kind), name=f"tiny-{kind}", device="cpu")


def kept(clip: Clip, work) -> tuple[int, object]:
    """Bytes that work() keeps for the way back, each tensor once and without the frozen weights; and what it returns."""
    sizes, frozen = {}, {p.data_ptr() for p in clip.model.parameters()}

    def pack(t):
        storage = t.untyped_storage()
        if storage.data_ptr() not in frozen:
            sizes[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        found = work()
    return sum(sizes.values()), found


def pixels(n: int, size: int, seed: int = 0) -> np.ndarray:
    """n noisy pictures uint8 [n, 3, size, size]; picture i has the tint of class i mod 4."""
    rng = np.random.default_rng(seed)
    tint = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [180, 180, 60]])[np.arange(n) % len(NAMES)]
    return np.clip(tint[:, :, None, None] + rng.normal(0, 40, (n, 3, size, size)), 0, 255).astype(np.uint8)


def dataset(size: int, name: str = "tiny"):
    """A Dataset of four tints: 8 training, 4 validation and 10 test pictures per class."""
    from fewshot.data import Dataset, ImageArrays

    def part(n: int, seed: int) -> ImageArrays:
        return ImageArrays(pixels(n, size, seed), np.arange(n) % len(NAMES), [f"{seed}/{i}" for i in range(n)])

    return Dataset(name, NAMES, "a photo of a {}.", part(32, 1), part(16, 2), part(40, 3))


def task(kind: str = "vit", shots: int = 4, seed: int = 1, name: str = "tiny"):
    return dataset(clip(kind).image_size, name).task(shots, seed)


# the shortest training that still trains, per method; empty for methods without steps
QUICK = {
    "zero_shot": {},
    "linear_probe": {},
    "cross_modal_probe": dict(iterations=20, every=5),
    "lpplusplus": dict(epochs=20),
    "gda": dict(augment_epoch=2),
    "tip_adapter": dict(augment_epoch=2, search_step=(5, 5)),
    "tip_adapter_f": dict(augment_epoch=2, search_step=(5, 5), epochs=3, lr=0.01),
    "clip_adapter": dict(epochs=3, lr=0.1),
    "taskres": dict(epochs=3, lr=0.01),
    "coop": dict(n_ctx=4, epochs=3, lr=0.1),
    "cocoop": dict(epochs=2, lr=0.1, batch_size=4),
    "kgcoop": dict(epochs=3, lr=0.1),
    "prograd": dict(epochs=3, lr=0.1),
    "plotpp": dict(epochs=2, lr=0.1),
    "maple": dict(epochs=2, lr=0.1, prompt_depth=2),
    "clip_lora": dict(iterations=4, lr=0.01),
    "fine_tune": dict(iterations=6, lr=0.001, chunk=5),
    "text_adapter": dict(
        texts_from="templates", grid=(1, 3), steps=10, converter_steps=4, hidden=32, layers=2, heads=2, ffn=32
    ),
}
# what a backbone kind needs for a method to be possible there
ADAPT = {("clip_lora", "resnet"): dict(encoder="text")}
# impossible there, and refused at construction
REFUSED = {("plotpp", "resnet"), ("maple", "resnet")}


def quick(method: str, kind: str) -> dict:
    return {**QUICK.get(method, {}), **ADAPT.get((method, kind), {})}
