"""CLIP-LoRA's own question (its figure 3): which matrices, what rank, which encoder and which blocks to adapt, at 4 shots."""

from __future__ import annotations

from collections.abc import Sequence

from fewshot.errors import FewshotError, unknown
from fewshot.lora import MATRICES
from fewshot.methods.clip_lora import POSITIONS, Config
from fewshot.runs import Profile, Run, grid
from fewshot.studies import datasets_of, with_options

SOME = ("imagenet", "stanford_cars", "eurosat")
SETS = ("q", "k", "v", "o", "qv", "qkv", "qkvo")  # of matrices
GRID_RANKS = (2, 8, 32)  # beside every set of matrices
RANKS = (1, 2, 4, 8, 16, 32, 64)  # at q, k and v of both encoders
ENCODERS = ("text", "vision", "both")
DEFAULT = {"params": "".join(Config.params), "r": Config.r, "encoder": Config.encoder, "position": Config.position}


def label(params: str = DEFAULT["params"], r: int = DEFAULT["r"], encoder: str = "both", position: str = "all") -> str:
    """The arm of a setting: "qkv, rank 2, both, all" is the authors' own."""
    return f"{params}, rank {r}, {encoder}, {position}"


def settings(
    matrices: Sequence[str], grid_ranks: Sequence[int], ranks: Sequence[int], positions: Sequence[str]
) -> list[dict]:
    """Every setting once, the authors' own first: {params, r, encoder, position}."""
    asked = [dict(DEFAULT)]
    asked += [DEFAULT | {"params": params, "r": r} for params in matrices for r in grid_ranks]
    asked += [DEFAULT | {"r": r} for r in ranks]
    asked += [DEFAULT | {"encoder": encoder, "position": p} for encoder in ENCODERS for p in positions]
    return list({label(**setting): setting for setting in asked}.values())


def arms(
    profile: Profile,
    datasets: Sequence[str] | None = None,
    shots: int = 4,
    seeds: Sequence[int] = (1, 2, 3),
    matrices: Sequence[str] = SETS,
    grid_ranks: Sequence[int] = GRID_RANKS,
    ranks: Sequence[int] = RANKS,
    positions: Sequence[str] = tuple(POSITIONS),
) -> dict[str, list[Run]]:
    """An arm per setting: matrices x `grid_ranks`, `ranks` at the authors' matrices, encoders x `positions` at their rank.

    A setting that several of the three grids ask for is one arm. What a setting leaves as the authors have it is not
    written down, so the arm of their own setting has the runs of every other experiment. None: three data sets.
    Raises FewshotError for an unknown matrix or position.
    """
    datasets = datasets_of(profile, SOME) if datasets is None else list(datasets)
    for params in matrices:
        if not params or set(params) - set(MATRICES):
            raise FewshotError(f"{params!r} names no set of matrices; write letters of {MATRICES}, as in 'qv'.")
    for position in positions:
        if position not in POSITIONS:
            raise unknown("LoRA position", position, POSITIONS)
    usual = DEFAULT | {"params": list(DEFAULT["params"])} | profile.methods.get("clip_lora", {})
    found = {}
    for setting in settings(matrices, grid_ranks, ranks, positions):
        options = setting | {"params": list(setting["params"])}
        options = {name: value for name, value in options.items() if value != usual[name]}
        own = with_options(profile, "clip_lora", **options)
        found[label(**setting)] = grid("lora_ablation", ["clip_lora"], datasets, [shots], seeds, own)
    return found
