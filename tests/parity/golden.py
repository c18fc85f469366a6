"""A fixture folder: numbers that the authors' own code computed, and how close ours must come.

The folder says its tolerance itself, in one of three ways: the distance of each tensor to a float64 run of the same
code; a sentence with numbers for logits, losses, gradients and parameters; or not at all, in which case the sheets' rule
holds: 1e-5 of the largest entry before the first step, 1e-4 after.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from fewshot.clip import Clip, config_from_state_dict
from fewshot.methods.method import Names

ROOT = Path(os.environ.get("FEWSHOT_FIXTURES") or Path(__file__).parents[1] / "fixtures")
# after the first optimizer step
LATER = re.compile(r"(^|\.)(param|adam\.param)\.|\.final|loss.*\.step[1-9]|(logits|cos_ce_kl)\.step[1-9]")


@cache
def world() -> tuple[Clip, dict[str, Tensor], dict]:
    """The tiny CLIP of the set, its inputs (images, labels, tokens, features) and its description."""
    state = load_file(ROOT / "clip.safetensors")
    ids, rows = state.pop("token_embedding.ids"), state.pop("token_embedding.rows")
    meta = json.loads((ROOT / "meta.json").read_text())
    table = torch.zeros(meta["config"]["vocab_size"], rows.shape[1])
    table[ids] = rows
    state["token_embedding.weight"] = table
    config = config_from_state_dict(state, quick_gelu=True)
    described = meta["config"]
    config["text_cfg"]["heads"] = described["transformer_heads"]
    assert config["embed_dim"] == described["embed_dim"]
    assert config["text_cfg"]["layers"] == described["transformer_layers"]
    return Clip.from_state_dict(config, state, "fixture", device="cpu"), load_file(ROOT / "inputs.safetensors"), meta


class Golden:
    """The tensors of one folder. Every key must be compared, or named as an input, by the end of the check."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.name
        self.meta = json.loads((folder / "meta.json").read_text())
        self.tensors = load_file(folder / "golden.safetensors")
        self.clip, inputs, world_meta = world()
        self.images, self.labels = inputs["images"], inputs["labels"]
        self.batch = self.meta.get("batch", world_meta["batch"])
        self.classnames = tuple(self.meta.get("classnames", world_meta["classnames"]))
        self.template = (self.meta.get("templates") or [world_meta["template"]])[0]
        self.seen: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def keys(self, prefix: str) -> list[str]:
        return sorted(k for k in self.tensors if k.startswith(prefix))

    def task(self, dataset: str = "fixture") -> Names:
        return Names(dataset, self.classnames, self.template, shots=1)

    def batches(self, steps: int = 3):
        """(images, labels) of steps 0, 1, 2: batch after batch in order."""
        for k in range(steps):
            part = slice(k * self.batch, (k + 1) * self.batch)
            yield self.images[part], self.labels[part]

    def given(self, key: str) -> Tensor:
        """A tensor that the fixture hands to the method as an input (data, or drawn at random by the authors' code)."""
        self.seen.add(key)
        return self.tensors[key]

    def tolerance(self, key: str) -> float:
        """Absolute bound for a tensor."""
        peak = float(self.tensors[key].double().abs().max()) if self.tensors[key].numel() else 0.0
        described = self.meta.get("tensors", {}).get(key)
        if isinstance(described, dict) and "float64_max_abs_diff" in described:
            return max(10 * described["float64_max_abs_diff"], 1e-5 * peak)
        suggested = self.meta.get("tolerance", "")
        if "Suggested test tolerances" in suggested:
            said = suggested.split("Suggested test tolerances")[1]
            number = {
                w: float(re.search(rf"{w}\w* ([\d.e-]+\d)", said)[1]) for w in ("logits", "loss", "gradient", "param")
            }
            if key.startswith("logits"):
                return number["logits"] if LATER.search(key) else min(number["logits"], max(2e-5 * peak, 5e-5))
            if key.startswith("loss"):
                return number["loss"]
            if key.startswith("grad."):
                return number["gradient"] * peak
            if key.startswith("param."):
                return number["param"]
            return 1e-5 * peak
        return (1e-4 if LATER.search(key) else 1e-5) * peak

    def close(self, key: str, ours, atol: float | None = None) -> None:
        """Ours against the authors', at the folder's tolerance; `atol` may only make it tighter."""
        want = self.tensors[key].double()
        got = torch.as_tensor(ours).detach().double().cpu()
        self.seen.add(key)
        assert got.shape == want.shape, f"{self.folder} {key}: shape {list(got.shape)}, not {list(want.shape)}"
        bound = self.tolerance(key) if atol is None else min(atol, self.tolerance(key))
        off = float((got - want).abs().max()) if want.numel() else 0.0
        assert off <= bound, f"{self.folder} {key}: off by {off:.2e}, allowed {bound:.2e}"

    def equal(self, key: str, ours) -> None:
        """Exactly ours: token ids, labels, counts."""
        self.seen.add(key)
        want, got = self.tensors[key].double(), torch.as_tensor(ours).double()
        assert torch.equal(got, want), f"{self.folder} {key}: differs"

    def left(self) -> list[str]:
        return sorted(set(self.tensors) - self.seen)


def train(golden: Golden, model, inputs, names: dict, *, optimizer, lrs=None, prefix: str = "") -> list[Tensor]:
    """Three steps as the fixture took them: losses, the gradient of step 0, the parameters after step 3.

    inputs(images) gives what the model takes; names maps the fixture's parameter names to a function of the model that
    returns the parameter (its `.grad` is read through the same function). Returns the training logits of each step.
    """
    seen = []
    model.train()
    for k, (images, labels) in enumerate(golden.batches()):
        if lrs is not None:
            for group in optimizer.param_groups:
                group["lr"] = lrs[k]
        optimizer.zero_grad(set_to_none=True)
        x = inputs(images)
        with torch.no_grad():
            seen.append(model.logits(x))
        value = model.backward(x, labels)
        golden.close(f"{prefix}loss.step{k}", value)
        if k == 0:
            for name, read in names.items():
                golden.close(f"{prefix}grad.{name}", read(lambda p: p.grad))
        optimizer.step()
    for name, read in names.items():
        golden.close(f"{prefix}param.{name}", read(lambda p: p.data))
    model.eval()
    return seen
