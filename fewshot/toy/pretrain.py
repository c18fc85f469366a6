"""Pre-train the tiny CLIP from scratch on drawn picture-caption pairs: ``python -m fewshot.toy.pretrain``.

The loss is CLIP's symmetric contrastive loss with one change: a caption that is true of several pictures of the batch
("a star" beside two stars) counts as a positive for all of them (as in UniCL, Yang et al. 2022, eq. 1-3), which a world
whose captions are known exactly allows. Training goes from plain scenes with one solid shape to full scenes: shapes are
hard to find for a transformer that has not yet learned to look at edges.
"""

import argparse
import csv
import json
import math
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from fewshot.clip import TextTower, VisionTower
from fewshot.errors import FewshotError
from fewshot.toy import world
from fewshot.toy.draw import BACKGROUNDS, COLOURS, SHAPE_NAMES, TEXTURES, Scenes, draw

CONFIG = {
    "embed_dim": 128,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 128, "patch_size": 8, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 4},
}
STEPS, PLAIN_STEPS, BATCH = 6000, 800, 128  # of the shipped weights
UNSEEN_SEED = 49408  # rows of the token embedding that no caption touches are drawn from this seed, not stored
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD

QUESTIONS = {  # what the captions of a batch speak of -> how often, in the plain and in the full stage
    ("shape",): (8, 4),
    ("colour", "shape"): (1, 2),
    ("colour",): (1, 0.5),
    ("background",): (1, 1),
    ("texture",): (0, 1.5),
    ("texture", "shape"): (0, 1.5),
    ("colour", "texture", "shape"): (0, 1.5),
    ("form", "shape"): (1, 2),
    ("accent", "shape"): (0.5, 1),
    ("shape", "background"): (0.5, 0.5),
    ("count", "shape"): (0, 0.5),
    ("colour", "form", "accent", "shape"): (0, 1),
    ("name",): (1, 5),
    ("mixed",): (0, 3),
}
MIXABLE = [q for q in QUESTIONS if q not in (("mixed",), ("name",))]


def training_scenes(n: int, generator: torch.Generator, plain: bool) -> tuple[Scenes, list]:
    """Scenes of one batch; half of them show a kind of one of the named lists, the rest is free.

    Returns the scenes and, for each, the kind that was imposed (or None).
    """
    if plain:
        scenes = world.random_scenes(n, generator, solid=1.0, single=1.0, size=(0.6, 0.9), shift=0.12, tilt=0.15, noise=0.02,
                                     photo=1.0, dark=0.0)  # fmt: skip
        backdrop = torch.rand(n, generator=generator) < 0.6
        scenes.background[backdrop] = BACKGROUNDS.index("plain")
    else:
        scenes = world.random_scenes(n, generator)
    kinds: list = [None] * n
    if not plain:
        groups = torch.randint(2 * len(world.NAMED), (n,), generator=generator).tolist()
        choice = torch.randint(2**20, (n,), generator=generator).tolist()
        for i, (group, draw_) in enumerate(zip(groups, choice, strict=True)):
            if group < len(world.NAMED):
                kinds[i] = world.NAMED[group][draw_ % len(world.NAMED[group])]
                world.impose(scenes, torch.tensor([i]), kinds[i].attributes, generator)
        empty = torch.rand(n, generator=generator) < 0.06
        scenes.visible[empty] = 0.0
        full = (torch.rand(n, generator=generator) < 0.10).nonzero()[:, 0]  # a texture that fills the picture
        scenes.shape[full], scenes.form[full], scenes.count[full] = SHAPE_NAMES.index("square"), 0, 0
        scenes.size[full] = 2.2
        for i in full.tolist():
            kinds[i] = None
    return scenes, kinds


def captions(scenes: Scenes, kinds: list, question: tuple, generator: torch.Generator) -> tuple[list[str], Tensor]:
    """One caption per scene: sentences [N] and the bit masks [N, F] of the scenes each is true of."""
    state = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))

    def pick(options):
        return options[state.integers(len(options))]

    columns = world.values(scenes).tolist()
    sentences, masks = [], []
    for values, kind in zip(columns, kinds, strict=True):
        row = dict(zip(world.FIELDS, values, strict=True))
        if question == ("name",) and row["visible"] and kind is not None and kind.known:
            phrase, mask = world.name_phrase(kind, pick), world.kind_mask(kind)
        else:
            facets = question if row["visible"] else ("background",)
            facets = pick(MIXABLE) if facets in (("name",), ("mixed",)) else facets
            phrase, mask = world.describe(row, facets, pick)
        templates = world.TEMPLATES
        if row["style"] and row["visible"]:
            templates = world.STYLE_TEMPLATES[row["style"]]
            mask[world.FIELDS.index("style")] = 1 << row["style"]
        template = pick(templates)
        sentences.append(template.format(phrase))
        masks.append(mask)
    return sentences, torch.tensor(masks)


def vocabulary() -> list[int]:
    """Ids of every token a caption can contain, ascending (padding, start and end included)."""
    words = [
        *world.TEMPLATES, *sum(world.STYLE_TEMPLATES.values(), ()), *(suffix for _, suffix in world.SUFFIXES), *COLOURS,
        *TEXTURES, *BACKGROUNDS, *SHAPE_NAMES, *world.BACKGROUND_PHRASES.values(), *world.CAR_TYPES, *world.POSE_NAMES,
        *world.COUNT_WORDS.values(), *world.ACCENTS.values(), "plain texture", "bright dark thing with an people, doing",
        *(phrase for phrases in world.FORM_PHRASES.values() for phrase, _ in phrases), *(name + "s" for name in SHAPE_NAMES),
        *(kind.name for group in world.NAMED for kind in group if kind.known),
    ]  # fmt: skip
    return sorted(set(open_clip.tokenize(words).flatten().tolist()))


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, truth: Tensor) -> Tensor:
    """Symmetric cross-entropy whose targets are uniform over the true partners.

    image [N, D], text [M, D]; truth bool [N, M].
    """
    logits = scale * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
    truth = truth.float()
    by_image = -(logits.log_softmax(1) * truth).sum(1) / truth.sum(1)
    by_text = -(logits.log_softmax(0) * truth).sum(0) / truth.sum(0)
    return (by_image.mean() + by_text.mean()) / 2


class Batches(torch.utils.data.Dataset):
    """Batch number -> pictures, tokens, truth; every batch depends on (seed, number) alone."""

    def __init__(self, steps: int, batch: int, plain_steps: int, seed: int):
        self.steps, self.batch, self.plain_steps, self.seed = steps, batch, plain_steps, seed
        ids = vocabulary()
        self.compact = torch.zeros(49408, dtype=torch.long)
        self.compact[ids] = torch.arange(len(ids))

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        plain = step < self.plain_steps
        scenes, kinds = training_scenes(self.batch, generator, plain)
        pictures = torch.from_numpy(draw(scenes, generator))
        weights = torch.tensor([w[0 if plain else 1] for w in QUESTIONS.values()], dtype=torch.float)
        question = list(QUESTIONS)[int(torch.multinomial(weights, 1, generator=generator))]
        sentences, masks = captions(scenes, kinds, question, generator)
        unique = {sentence: i for i, sentence in enumerate(sentences)}  # equal captions once
        masks = masks[list(unique.values())]
        tokens = open_clip.tokenize(list(unique))
        eot = tokens.argmax(-1)
        tokens = self.compact[tokens[:, : int(eot.max()) + 1]]
        return pictures, tokens, eot, world.matches(world.values(scenes), masks), " ".join(question)


PROBES = {  # held-out questions of the log: attribute -> prompts, one per value
    "shape": [f"a photo of a {name}." for name in SHAPE_NAMES],
    "colour": [f"a photo of a {name} thing." for name in world.COLOUR_NAMES],
    "texture": [f"a photo of a {'plain' if name == 'solid' else name} thing." for name in world.TEXTURES],
    "background": [f"a photo of a {name}." for name in BACKGROUNDS],
}


class Trainer:
    """The model, its optimiser and what is needed to go on after an interruption."""

    def __init__(self, steps: int, batch: int, plain_steps: int, lr: float, seed: int):
        torch.manual_seed(seed)
        self.batches = Batches(steps, batch, plain_steps, seed)
        config = CONFIG | {"text_cfg": CONFIG["text_cfg"] | {"vocab_size": len(vocabulary())}}
        self.model = open_clip.model.CLIP(**config)
        self.vision, self.text = VisionTower(self.model.visual), TextTower(self.model)
        matrices = [p for name, p in self.model.named_parameters() if "resblocks" in name and p.ndim == 2]
        chosen = {id(p) for p in matrices}
        self.model.logit_scale.requires_grad_(False)
        others = [p for p in self.model.parameters() if id(p) not in chosen and p.requires_grad]
        if not hasattr(torch.optim, "Muon"):
            raise FewshotError(f"pre-training needs torch 2.9 or newer for its Muon optimiser, and this is {torch.__version__}.")
        self.optimizers = (  # Muon for the matrices inside the blocks, AdamW for the rest
            torch.optim.Muon(matrices, lr=2 * lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0),
        )
        self.peaks, self.step = [2 * lr, lr], 0
        self.mean, self.std = (torch.tensor(c).view(1, 3, 1, 1) for c in (MEAN, STD))

    def schedule(self, step: int) -> float:
        """Share of the peak learning rate: 150 steps of warm-up, then a cosine to zero."""
        return min((step + 1) / 150, 0.5 * (1 + math.cos(math.pi * step / len(self.batches))))

    def multiplier(self, step: int) -> float:
        """exp(logit_scale): led from CLIP's start, 1 / 0.07, to the 100 at which all released models stand."""
        return (1 / 0.07) * 7 ** min(1.0, step / (0.75 * len(self.batches)))

    def encode(self, pictures: Tensor, tokens: Tensor, eot: Tensor) -> tuple[Tensor, Tensor]:
        image = (pictures.float() / 255 - self.mean) / self.std
        with torch.autocast("cpu", torch.bfloat16), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return self.vision.encode(image), self.text.encode(self.text.embed(tokens), eot)

    def update(self, pictures, tokens, eot, truth) -> float:
        self.model.logit_scale.data.fill_(math.log(self.multiplier(self.step)))
        loss = contrastive_loss(*self.encode(pictures, tokens, eot), self.model.logit_scale.exp(), truth)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * self.schedule(self.step)
            optimizer.step()
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def probe(self, plain: bool, n: int = 480) -> dict[str, float]:
        """Zero-shot accuracy (percent) of single attributes on held-out scenes."""
        generator = torch.Generator().manual_seed(987_654_321)
        scenes, _ = training_scenes(n, generator, plain)
        scenes.visible[:], scenes.style[:] = 1.0, 0
        pictures = torch.from_numpy(draw(scenes, generator))
        result = {}
        for name, prompts in PROBES.items():
            tokens = open_clip.tokenize(prompts)
            eot = tokens.argmax(-1)
            image, text = self.encode(pictures, self.batches.compact[tokens[:, : int(eot.max()) + 1]], eot)
            guess = (image.float() @ F.normalize(text.float(), dim=-1).T).argmax(1)
            small = scenes.size < 2  # a texture that fills the picture hides the rest
            result[name] = 100 * float((guess == getattr(scenes, name))[small].float().mean())
        return result

    def save(self, path: Path) -> None:
        """Weights in OpenAI's naming; of the token embedding only the rows that captions touch."""
        state = {k: v.contiguous() for k, v in self.model.state_dict().items() if k != "attn_mask"}
        state["token_embedding.ids"] = torch.tensor(vocabulary())
        notes = {"config": json.dumps(CONFIG), "unseen_seed": str(UNSEEN_SEED), "steps": str(self.step)}
        partial = path.with_suffix(".partial")
        save_file(state, partial, metadata=notes)
        partial.replace(path)


def train(out: Path, steps: int, batch: int, plain_steps: int, lr: float, seed: int, log_every: int = 100) -> None:
    """Train, log and save; a run that was stopped goes on from its last checkpoint in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(steps, batch, plain_steps, lr, seed)
    checkpoint, log = out / "checkpoint.pt", out / "pretraining.csv"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        trainer.model.load_state_dict(state["model"])
        for optimizer, kept in zip(trainer.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        trainer.step = state["step"]
    rest = torch.utils.data.Subset(trainer.batches, range(trainer.step, steps))
    loader = torch.utils.data.DataLoader(rest, batch_size=None, num_workers=1, prefetch_factor=8)
    started, losses = time.perf_counter(), []
    for pictures, tokens, eot, truth, _ in tqdm(loader, total=steps, initial=trainer.step, disable=None):
        losses.append(trainer.update(pictures, tokens, eot, truth))
        if trainer.step % log_every == 0 or trainer.step == steps:
            trainer.model.eval()
            row = {"step": trainer.step, "pairs": trainer.step * batch, "loss": f"{np.mean(losses):.4f}",
                   "logit_scale": f"{trainer.model.logit_scale.exp().item():.2f}"}  # fmt: skip
            for stage in ("plain", "full"):
                row |= {f"{k}_{stage}": f"{v:.1f}" for k, v in trainer.probe(stage == "plain").items()}
            row["seconds"] = f"{time.perf_counter() - started:.0f}"
            with log.open("a", newline="") as file:
                writer = csv.DictWriter(file, row)
                if log.stat().st_size == 0:
                    writer.writeheader()
                writer.writerow(row)
            state = {"model": trainer.model.state_dict(), "step": trainer.step}
            state["optimizers"] = [optimizer.state_dict() for optimizer in trainer.optimizers]
            torch.save(state, out / "checkpoint.partial")
            (out / "checkpoint.partial").replace(checkpoint)
            trainer.model.train()
            losses = []
    trainer.save(out / "clip.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("_build/toy-clip"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--plain-steps", type=int, default=PLAIN_STEPS, help="steps on plain scenes before the full ones")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    train(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
