"""Which images are the few shots: CoOp's draw, exactly.

One `random.Random(seed)`; the rows are grouped by label, groups in order of first appearance and rows in file order;
for each group of train `sample(group, shots)`, then with the same stream for each group of val
`sample(group, min(shots, 4))`. A group that is too small is taken whole and consumes nothing. CLIP-LoRA draws the same
way but val first, so the same seed gives other images.

Source: Zhou et al., CoOp (arXiv:2109.01134) and its loader; Zanella and Ben Ayed, CLIP-LoRA (arXiv:2405.18541).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from fewshot.errors import FewshotError, unknown

ORDERS = ("coop", "clip_lora")
MOST_VAL_SHOTS = 4


def few_shot_indices(
    train_labels: Sequence[int] | np.ndarray,
    val_labels: Sequence[int] | np.ndarray | None,
    shots: int,
    seed: int,
    order: str = "coop",
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the sampled train rows [<= C * shots] and val rows [<= C * min(shots, 4)], int64, class by class.

    Raises FewshotError for shots below 1 and for an order other than "coop" and "clip_lora".
    """
    if isinstance(shots, bool) or not isinstance(shots, (int, np.integer)) or shots < 1:
        raise FewshotError(f"shots must be a whole number of at least 1 (or None for all images), not {shots!r}.")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise FewshotError(f"seed must be a whole number, not {seed!r}.")
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    rng = random.Random(int(seed))
    parts = {"train": (train_labels, int(shots)), "val": (val_labels, min(int(shots), MOST_VAL_SHOTS))}
    drawn = {part: _draw(rng, *parts[part]) for part in (("train", "val") if order == "coop" else ("val", "train"))}
    return drawn["train"], drawn["val"]


def _draw(rng: random.Random, labels: Sequence[int] | np.ndarray | None, shots: int) -> np.ndarray:
    groups: dict[int, list[int]] = {}
    for row, label in enumerate(np.asarray([] if labels is None else labels).tolist()):
        groups.setdefault(label, []).append(row)
    rows = [row for group in groups.values() for row in (rng.sample(group, shots) if len(group) >= shots else group)]
    return np.array(rows, dtype=np.int64)
