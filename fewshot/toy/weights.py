"""The tiny CLIP's weights, as shipped with the package."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

PATH = Path(__file__).with_name("clip.safetensors")


def load(path: Path = PATH) -> tuple[dict, dict[str, Tensor]]:
    """Configuration (arguments of ``open_clip.model.CLIP``) and state dict (OpenAI's naming, fp32).

    Of the token embedding only the rows met in pre-training are stored; the others are what they were before it: draws
    from N(0, 0.02^2), the same on every machine.
    """
    with safe_open(path, "pt") as file:
        notes = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    config, ids = json.loads(notes["config"]), state.pop("token_embedding.ids")
    rows = state["token_embedding.weight"]
    generator = torch.Generator().manual_seed(int(notes["unseen_seed"]))
    table = 0.02 * torch.randn(config["text_cfg"]["vocab_size"], rows.shape[1], generator=generator)
    table[ids] = rows
    return config, state | {"token_embedding.weight": table}
