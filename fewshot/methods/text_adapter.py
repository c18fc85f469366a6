"""LLM-text adapter: sentences that an LLM wrote about a class become training features of a linear head.

Stage 1: a converter f_Q learns on pairs (x_i, t_i), I_i = f_image(x_i), T_i = f_text(t_i), I'_i = f_Q(T_i), to put I'_i
near I_i and away from the other I_j (equations 1-5; equation 4 is misprinted, see fewshot/pair_losses.py).
Stage 2: f_Q is frozen; logits = 100 v W^T + b with v = I/|I| of pictures and I'/|I'| of sentences; mean cross-entropy over
both (equations 6-9). The test uses the image encoder and W, b alone.
The paper names no backbone, optimiser, learning rate, size or schedule, and has no public code: every constant in Config
is our choice unless it says otherwise. Whatever the converter may see is said by `pairs`; see fewshot/pairs.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.clip import unit
from fewshot.converters import CLOSED, MLP, RIDGES, TRAINED, closed_form, pooled, train
from fewshot.data.catalogue import known_as
from fewshot.errors import FewshotError, unknown
from fewshot.heads import SCALE, Heads, Pool, train_heads
from fewshot.methods.method import LATER, Method
from fewshot.pair_losses import LOSSES, SAME_CLASS
from fewshot.pairs import KEYS, PAIRS, Bank, Pairs, make_pairs, nearest
from fewshot.qformer import QFormer, start_from_bert
from fewshot.texts import POLICIES, domain_of, sentences

# The paper's number of texts per class by shots (its table 1), chosen by it for the best accuracy.
PAPER = {
    "cub": {1: 5, 2: 2, 3: 4, 4: 3, 5: 1, 10: 1, 15: 1},
    "oxford_pets": {1: 20, 2: 3, 3: 30, 4: 5, 5: 10, 10: 1, 15: 1},
}
LINES = 10  # texts per class where the paper has no number: the lines its prompt asks for
LOOKS = 20  # at the validation pictures, evenly over the steps of stage 2, where select="val"
RIDGE = 0.1  # of the linear converter without validation pictures
CHOICES = {
    "converter": (*TRAINED, *CLOSED), "kv": KEYS, "pool": ("mean", "first", "max_cos", "each"), "loss": LOSSES,
    "pairs": tuple(PAIRS), "match": ("random", "top_t"), "pick": ("first", "random", "diverse"),
    "mix": ("concat", "half"), "init": ("random", "zeroshot", "class_mean"), "name_policy": POLICIES,
    "select": ("last", "val"),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    texts: int | None = None  # m per class, 0: pictures only; None: chosen from `grid`, fixed: the paper's, or 10
    grid: tuple[int, ...] = (1, 2, 3, 4, 5, 10, 15, 20, 30)  # those that the sentences suffice for
    # "": what ships for the data set; without LLM, "templates", or "attributes" of CUB; or a JSON file
    texts_from: str = ""
    name_policy: str = "keep"  # of the class name in a sentence: "keep", "mask", "prefix", "require"
    pick: str = "first"  # which m: "first" of the file, "random", "diverse" (each the farthest from those before)
    # stage 1
    converter: str = "qformer"  # qformer, mlp; closed forms: identity, mean_shift, center, linear, procrustes, noise
    pairs: str = "fewshot_class"  # what trains the converter; everything else has seen more than the shots
    pairs_from: str = ""  # of cross_dataset, *_captions and jsonl: the data set, folder or file
    match: str = "random"  # any sentence of the class, or "top_t": the `top` nearest to the picture
    top: int = 5
    loss: str = "swapped"
    same_class: str | None = None  # pairs i != j of one class; None: "ignore" for sentences of classes, else "negative"
    margin: float = 0.0
    neg_weight: float = 1.0  # swapped_balanced
    tau: float = 0.07  # infonce
    kv: str = "pooled"  # what the queries read
    pool: str = "mean"  # of the queries
    chunks: int = 8  # pieces of kv="chunks"
    hidden: int = 256  # BLIP-2: 768, 12 layers, 12 heads, 3072, 32 queries
    layers: int = 4
    heads: int = 4
    ffn: int = 1024
    queries: int = 8
    cross_every: int = 2
    dropout: float = 0.1
    residual: bool = False  # mlp: I' = T + f(T)
    ridge: float | None = None  # linear; None: chosen on validation pictures, else 0.1
    sigma: float = 0.016**0.5  # noise: of CapDec; LaFTer: 0.1
    converter_lr: float = 1e-4
    converter_weight_decay: float = 0.05
    converter_batch: int = 128
    converter_steps: int | None = None  # None: 100 passes over the pictures of the pairs, at least 2,000 steps
    # stage 2
    steps: int = 2000  # with and without texts
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-4
    mix: str = "concat"  # one pool, or "half": each batch half pictures, half texts
    text_weight: float = 1.0
    init: str = "random"  # the start of W; "zeroshot" reads the names even without texts
    bias: bool = True
    # options that came later
    stage2_texts: str = field(default="", metadata=LATER)  # another source for stage 2 alone, named as in texts_from
    drop_other_names: bool = field(default=False, metadata=LATER)  # leave out sentences that name another class
    bert: str = field(default="", metadata=LATER)  # qformer: safetensors of BERT to start from; needs BERT's sizes
    shift: float = field(default=1.0, metadata=LATER)  # mean_shift: share of the way from the mean text to the mean picture
    learn_scale: bool = field(default=False, metadata=LATER)  # of the logits, from 100 on; W takes it in after training
    select: str = field(default="last", metadata=LATER)  # "val": the step of stage 2 that is best on validation pictures


class TextAdapter(Method):
    name, title, paper = "text_adapter", "LLM-text adapter", "textadapter"
    selection = "fewval"
    trained = False
    Config = Config

    def __init__(self, clip, task, config=None, *, seed=None) -> None:
        super().__init__(clip, task, config, seed=seed)
        check(self.config, clip)
        classes, width = len(task.classnames), clip.embed_dim
        self.register_buffer("weight", torch.zeros(classes, width, device=clip.device))  # W [C, D]
        self.register_buffer("bias", torch.zeros(classes, device=clip.device))  # b [C]
        self.register_buffer("center", torch.zeros(width, device=clip.device))  # taken from unit images; 0 but for center
        self.set_classes(task.classnames)
        self.support: tuple[Tensor, Tensor] | None = None  # unit features [N, D], labels [N]
        self.saw: tuple[str, ...] = ()  # ids of the pictures that the converter learned from
        self._learned: dict = {}  # the converter and what it reads: not part of the model, and not saved
        self.heads: dict[int, tuple[Tensor, Tensor | None]] = {}  # number of texts: W [C, D] and b [C], all of one training
        self.looks: dict[int, dict] = {}  # select="val": the heads after so many steps

    def retarget(self, classnames: Sequence[str]) -> Method:
        return self.refuse_retarget(classnames, "it learns one weight vector per class")

    def learned(self) -> int:
        """The head, and the converter that was needed for it."""
        c, d = self.config, self.clip.embed_dim
        head = self.weight.numel() + (self.bias.numel() if c.bias else 0)
        if c.texts == 0:
            return head
        closed = {"mean_shift": 2 * d, "center": 2 * d, "linear": d * d + d, "procrustes": d * d + 2 * d}
        if c.converter not in TRAINED:
            return head + closed.get(c.converter, 0)
        with torch.device("meta"):
            return head + sum(p.numel() for p in self.make_converter().parameters())

    def make_converter(self) -> QFormer | MLP:
        c, d = self.config, self.clip.embed_dim
        rng = self.rng("converter")
        if c.converter == "mlp":
            return MLP(d, residual=c.residual, rng=rng)
        pieces = c.chunks if c.kv == "chunks" else 0
        source = self.clip.text_width if c.kv == "tokens" else d // max(pieces, 1)
        made = QFormer(
            source, d, hidden=c.hidden, layers=c.layers, heads=c.heads, ffn=c.ffn, queries=c.queries,
            cross_every=c.cross_every, dropout=c.dropout, pieces=pieces, rng=rng,
        )  # fmt: skip
        if c.bert and not made.proj.weight.is_meta:
            start_from_bert(made, c.bert)
        return made

    @torch.no_grad()
    def prepare(self, support) -> None:
        """Both stages, for every number of texts at once; `choose` picks one."""
        from fewshot.data.features import image_features

        device = self.clip.device
        images = unit(image_features(self.clip, support, progress=False)).to(device)
        self.support = images, torch.as_tensor(support.labels).to(device)
        c = self.config
        lines = own = self.lines(c.texts_from) if c.texts != 0 else []
        if lines:
            own = self.lines(c.stage2_texts) if c.stage2_texts else lines
            bank = self.bank(own)
            self._learned = {"bank": bank, "order": self.order(bank)}
            self.learn_converter(make_pairs(c.pairs, self, support, lines), bank)
        self.train_heads(self.counts(own))
        self.use(self.default(), {})

    # the sentences

    def lines(self, source: str) -> list[list[str]]:
        """The sentences of each class from that source."""
        c, domain = self.config, domain_of(self.template)
        return sentences(self.dataset, self.classnames, source, c.name_policy, domain, c.drop_other_names)

    def bank(self, lines: list[list[str]]) -> Bank:
        c = self.config
        return Bank(self.clip, lines, "pooled" if c.converter != "qformer" else c.kv, c.chunks)

    def counts(self, lines: list[list[str]]) -> tuple[int, ...]:
        """The numbers of texts per class for which a head is trained."""
        c = self.config
        if c.texts == 0:
            return (0,)
        fewest = min(range(len(lines)), key=lambda i: len(lines[i]))
        if c.texts is not None:
            if c.texts > len(lines[fewest]):
                raise FewshotError(
                    f"texts={c.texts} of {self.name}, but class {self.classnames[fewest]!r} has "
                    f"{len(lines[fewest])} sentences; ask for fewer, or add some."
                )
            return (c.texts,)
        return tuple(m for m in c.grid if m <= len(lines[fewest])) or (len(lines[fewest]),)

    def default(self) -> int:
        """The paper's number of texts, or 10; the nearest below where there are fewer."""
        known = PAPER.get(known_as(self.dataset), {})
        wanted = known.get(self.shots, LINES) if self.shots else LINES
        there = list(self.heads)
        return max([m for m in there if m <= wanted], default=min(there))

    def order(self, bank: Bank) -> Tensor:
        """The texts of each class [C, M] in the order in which they are taken, -1 at the end where there are fewer."""
        rows = bank.members.clone()
        rng = self.rng("texts")
        for row in rows if self.config.pick != "first" else ():
            there = row[row >= 0]
            if self.config.pick == "random":
                place = torch.randperm(len(there), generator=rng)
            else:
                place = farthest(bank.features[there].cpu())
            row[: len(there)] = there[place]
        return rows

    # stage 1

    def learn_converter(self, pairs: Pairs, own: Bank) -> None:
        """Train or solve for f_Q; `own` is the bank of stage 2, which serves both when the texts are the same."""
        from fewshot.data.features import image_features

        c, device = self.config, self.clip.device
        same = pairs.by_class and c.pairs != "cross_dataset" and not c.stage2_texts
        bank = own if same else self.bank(pairs.lines)
        if c.converter in ("identity", "noise"):
            self._learned["converter"] = closed_form(c.converter, own.features, own.features)
            return
        self.saw = tuple(str(i) for i in pairs.images.ids)
        images = unit(image_features(self.clip, pairs.images, progress=False)).to(device)
        labels = torch.as_tensor(pairs.labels).to(device)
        captions = bank.members[torch.as_tensor(pairs.group)]  # [N, M]
        if c.match == "top_t":
            captions = nearest(captions, images, bank.features, c.top)
        if c.converter in CLOSED:
            picture, place = (captions >= 0).nonzero(as_tuple=True)
            each = bank.features[captions[picture, place].to(device)], images[picture.to(device)]
            self._learned |= {"each": each, "converter": closed_form(c.converter, *each, c.ridge or RIDGE, c.shift)}
            if c.converter == "center":
                self.center = each[1].mean(dim=0)
            return
        same = c.same_class or ("ignore" if pairs.by_class else "negative")
        batch = min(c.converter_batch, len(images))
        steps = c.converter_steps or max(2000, 100 * -(-len(images) // batch))
        converter = self.make_converter().to(device)
        self.history = train(
            converter, images, labels, captions, bank.keys, steps=steps, batch_size=batch, lr=c.converter_lr,
            weight_decay=c.converter_weight_decay, pool=c.pool, rng=self.rng("pairs"), what="converter",
            loss=c.loss, same_class=same, margin=c.margin, neg_weight=c.neg_weight, tau=c.tau,
        )  # fmt: skip
        self._learned["converter"] = converter

    def taken(self, m: int) -> tuple[Bank, Tensor, Tensor]:
        """The sentences, the rows [C, m] of the first m of every class (-1: there are fewer), labels [n] of those there."""
        if "converter" not in self._learned:
            raise FewshotError(f"the {self.title} here has no converter: a saved one keeps its head alone; fit it again.")
        rows = self._learned["order"][:, :m]
        return self._learned["bank"], rows, torch.arange(len(rows))[:, None].expand_as(rows)[rows >= 0]

    def texts(self, m: int) -> tuple[Tensor, Tensor]:
        """The first m texts of every class as CLIP reads them, before any conversion: unit [n, D], labels [n]."""
        bank, rows, labels = self.taken(m)
        features = bank.features[rows[rows >= 0].to(bank.features.device)]
        return features, labels.to(features.device)

    @torch.no_grad()
    def converted(self, m: int) -> tuple[Tensor, Tensor]:
        """The first m texts of every class as image features: unit [n, D], labels [n]."""
        bank, rows, labels = self.taken(m)
        converter = self._learned["converter"]
        if isinstance(converter, QFormer) and bank.kind == "sentences":  # a prototype of each class
            out, labels = pooled(converter(*bank.set(rows)), self.config.pool), torch.arange(len(rows))
        elif isinstance(converter, (QFormer, MLP)):
            parts = rows[rows >= 0].split(512)
            out = torch.cat([pooled(converter(*bank.keys(part)), self.config.pool) for part in parts])
        else:
            out = converter(self.texts(m)[0])
        if out.dim() == 3:  # every query is a pseudo image
            labels = labels.repeat_interleave(out.shape[1])
            out = out.flatten(0, 1)
        return unit(out), labels.to(out.device)

    # stage 2

    def start(self) -> tuple[Tensor, Tensor | None]:
        """The first W [C, D] and b [C], the same for every number of texts."""
        c, (images, labels) = self.config, self.support
        if c.init == "zeroshot":
            weight = self.clip.zero_shot_weights(self.classnames, self.template)
        elif c.init == "class_mean":
            member = F.one_hot(labels, len(self.classnames)).to(images.dtype)
            weight = unit(member.t() @ images)
        else:
            bound = self.clip.embed_dim**-0.5  # nn.Linear's
            draw = torch.rand(self.weight.shape, generator=self.rng("head"))
            weight = (bound * (2 * draw - 1)).to(images.device)
        return weight, torch.zeros_like(self.bias) if c.bias else None

    def train_heads(self, counts: Sequence[int]) -> None:
        """A head for each number of texts, as one stack; kept in `heads`."""
        c, (images, labels) = self.config, self.support
        pictures = self.features(images), labels
        nothing = images[:0], labels[:0]
        sigma = c.sigma if c.converter == "noise" else 0.0
        pools = [Pool.of(pictures, self.converted(m) if m else nothing, c.text_weight, sigma) for m in counts]
        self.looks = {}
        every = max(1, c.steps // LOOKS)

        def keep(step: int, stack) -> None:
            if step % every == 0 or step == c.steps:
                self.looks[step] = split(stack, counts)

        stack = train_heads(
            pools, *self.start(), [(self.rng(f"order {m}"), self.rng(f"noise {m}")) for m in counts],
            steps=c.steps, batch_size=c.batch_size, lr=c.lr, weight_decay=c.weight_decay, mix=c.mix, what=self.title,
            learn_scale=c.learn_scale, keep=keep if c.select == "val" else None,
        )  # fmt: skip
        self.heads = split(stack, counts)

    def use(self, m: int, chosen: dict[str, float]) -> dict[str, float]:
        """Make the head of m texts the model's."""
        weight, bias = self.heads[m]
        self.weight = weight.clone()
        self.bias = torch.zeros_like(self.bias) if bias is None else bias.clone()
        ended = {"converter_loss": round(self.history[-1], 6)} if self.history else {}  # of the last steps of stage 1
        return self.adopt({"texts": m, "converter_saw": len(self.saw), **ended, **chosen})

    def features(self, x: Tensor) -> Tensor:
        """Unit image features; for the converter "center" without the mean of the training pictures."""
        x = unit(x)
        return unit(x - self.center) if self.config.converter == "center" else x

    def logits(self, x: Tensor) -> Tensor:
        return SCALE * self.features(x) @ self.weight.t() + self.bias

    # selection

    @torch.no_grad()
    def choose(self, features: Tensor, labels: Tensor) -> dict[str, float]:
        """The ridge of the linear converter, then the number of texts with the best accuracy (fewest of equals).

        With select="val" the step of stage 2 as well, of equals the last.
        """
        if self.support is None:
            raise FewshotError(f"the {self.title} has no support features to train on again; select right after fit.")
        features, labels = features.to(self.clip.device), labels.to(self.clip.device)
        chosen = {}
        c = self.config
        if c.converter == "linear" and c.ridge is None and c.texts != 0:
            chosen["ridge"] = self.choose_ridge(unit(features), labels)
            if chosen["ridge"] != RIDGE:
                self.train_heads(tuple(self.heads))
        found = {}
        for step, heads in (self.looks or {c.steps: self.heads}).items():
            self.heads = heads
            found |= {(m, step): right for m, right in self.accuracies(features, labels).items()}
        m, step = max(found, key=lambda at: (found[at], -at[0], at[1]))
        if self.looks:
            self.heads, chosen["step"] = self.looks[step], step
        return self.use(m, chosen)

    def choose_ridge(self, images: Tensor, labels: Tensor) -> float:
        """The one whose converted sentences are nearest to the validation pictures of their class, in mean square."""
        bank, errors = self._learned["bank"], {}
        for ridge in RIDGES:
            made = closed_form("linear", *self._learned["each"], ridge)(bank.features)
            distance = torch.cdist(made, images).square()
            errors[ridge] = float(distance[bank.group.to(labels.device)[:, None] == labels].mean())
        best = min(errors, key=errors.get)
        self._learned["converter"] = closed_form("linear", *self._learned["each"], best)
        return best

    @torch.no_grad()
    def accuracies(self, features: Tensor, labels: Tensor) -> dict[int, float]:
        """Percent right of the head of every number of texts; of the model as it was fitted, not of a saved one."""
        x = self.features(features.to(self.clip.device))
        right = {}
        for m, (weight, bias) in self.heads.items():
            scores = SCALE * x @ weight.t() + (0 if bias is None else bias)
            right[m] = 100 * float((scores.argmax(dim=1) == labels.to(x.device)).double().mean())
        return right


def split(stack: Heads, counts: Sequence[int]) -> dict[int, tuple[Tensor, Tensor | None]]:
    """A copy of each head of a stack, by its number of texts."""
    weight, bias = stack.weights().detach().clone(), None if stack.bias is None else stack.bias.detach().clone()
    return {m: (weight[i], None if bias is None else bias[i]) for i, m in enumerate(counts)}


def farthest(features: Tensor) -> Tensor:
    """An order [n] that starts at the first and goes on with the one farthest from all before."""
    order = [0]
    near = features @ features[0]  # cosine to the nearest of those taken
    while len(order) < len(features):
        near[order[-1]] = float("inf")
        order.append(int(near.argmin()))
        near = torch.maximum(near, features @ features[order[-1]])
    return torch.tensor(order)


def check(c: Config, clip) -> None:
    name = TextAdapter.name
    for option, known in CHOICES.items():
        if getattr(c, option) not in known:
            raise unknown(f"{option} of {name}", getattr(c, option), known)
    if c.same_class is not None and c.same_class not in SAME_CLASS:
        raise unknown(f"same_class of {name}", c.same_class, SAME_CLASS)
    if (c.texts or 0) < 0 or not c.grid or min(c.grid) < 1:
        raise FewshotError(f"{name} needs texts from 0 on, and a grid of numbers from 1 on.")
    sizes = (c.steps, c.converter_batch, c.layers, c.heads, c.queries, c.cross_every, c.chunks, c.top, c.ffn)
    if min(sizes) < 1 or (c.converter_steps or 1) < 1 or c.hidden % c.heads:
        raise FewshotError(f"{name} needs sizes and steps from 1 on, and hidden a multiple of heads.")
    if c.bert and c.converter != "qformer":
        raise FewshotError(f"bert= of {name} is the start of a Q-Former; converter={c.converter!r} has none.")
    if c.shift != 1.0 and c.converter != "mean_shift":
        raise FewshotError(f"shift= of {name} is a share of what mean_shift does; converter={c.converter!r} does not shift.")
    if c.converter == "qformer" and c.kv == "chunks" and clip.embed_dim % c.chunks:
        raise FewshotError(f"chunks={c.chunks} of {name} does not divide the {clip.embed_dim} numbers of a feature.")
    if c.converter == "qformer" and c.kv.startswith("tokens"):
        clip.require_text(f"kv={c.kv!r} of {name}")
