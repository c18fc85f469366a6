"""The only file that knows open_clip: loading, the activation check, and both encoders run on our own terms.

The encoders are re-run block by block from the weights of the open_clip model, which is never edited. That buys exact
speed-ups and a place where prompts and low-rank branches enter from outside:

- text is causal and only the end-of-text (EOT) row is read, so each prompt is cut at its own EOT and the prompts lie end
  to end, without padding; a prefix that all prompts share is run once and the suffixes attend to its keys and values; the
  last block computes the EOT row only;
- a training pass whose activations would take more memory than a budget goes in pieces, computed again on the way back;
- the last block of a ViT computes the class token only;
- QuickGELU, x * sigmoid(1.702 x) = silu(1.702 x) / 1.702, is one fused silu with both factors inside the linear layers.

All are equal to the plain model up to rounding. They hold for causal text pooled at EOT and for standard pre-norm
blocks; any other tower (SigLIP, CoCa, Hugging Face text, timm vision) is run by open_clip itself.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.weak import WeakTensorKeyDictionary

from fewshot.errors import FewshotError, unknown
from fewshot.packing import Known, Ragged
from fewshot.paths import path_of
from fewshot.weights import OPENAI_EXTRAS, config_from_state_dict, read_state_dict

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


def load_clip(name: str = "toy", pretrained: str | None = None, *, device: str | torch.device | None = None) -> Clip:
    """Load a frozen CLIP in fp32.

    `name` is "toy" (shipped with the package), a model of open_clip such as "ViT-B-16-quickgelu", or the path of one of
    OpenAI's own weight files, whose shapes give the architecture. `pretrained` is a tag of open_clip ("openai") or a
    local weight file (.safetensors, or .pt as a state dict or OpenAI's archive; a file never runs code here).
    `device` defaults to a GPU when there is one.

    Raises FewshotError for an unknown model or tag, weights that do not fit, a missing or damaged file, weights that
    cannot be downloaded, and OpenAI weights in a model with the wrong activation.
    """
    if name == "toy":
        from fewshot import toy

        return Clip.from_state_dict(*toy.load(), name="toy", device=device)
    if pretrained is None and path_of(name).is_file():
        state, openai = read_state_dict(name)
        if not openai:
            raise FewshotError(
                f"{name} does not say which activation its model has; name the model as well, for example "
                f"load_clip('ViT-B-32-quickgelu', pretrained={str(name)!r})."
            )
        config = config_from_state_dict(state, quick_gelu=True)
        return Clip.from_state_dict(config, state, Path(name).stem, device=device)

    import open_clip

    config = open_clip.get_model_config(name)
    if config is None:
        raise unknown("CLIP model", name, ["toy", *open_clip.list_models()])
    if pretrained is None:
        raise FewshotError(f"{name} needs weights: give pretrained= a tag such as 'openai', or a weight file.")
    if path_of(pretrained).is_file():
        state, openai = read_state_dict(pretrained)
        _check_activation(name, config, quick_gelu=openai)
        model = _build(config, name)
        _load(model, state, name)
    else:
        tag = open_clip.pretrained.get_pretrained_cfg(name, pretrained)
        if not tag:
            if Path(pretrained).suffix in (".pt", ".bin", ".safetensors", ".pth") or "/" in pretrained:
                raise FewshotError(f"the weight file {pretrained} does not exist; check the path.")
            raise unknown(f"pretrained tag of {name}", pretrained, open_clip.list_pretrained_tags_by_model(name))
        _check_activation(name, config, tag.get("quick_gelu", False))
        try:
            model = open_clip.create_model(name, pretrained=pretrained, precision="fp32")
        except Exception as error:
            raise FewshotError(
                f"the weights {pretrained!r} of {name} could not be loaded ({_first_line(error)}); connect to the "
                "network once, or pass a local weight file as pretrained."
            ) from error
    return Clip(model, f"{name}/{pretrained}", _tokenizer(name), device=device)


def _tokenizer(name: str):
    import open_clip

    try:
        return open_clip.get_tokenizer(name)
    except Exception as error:
        raise FewshotError(
            f"the tokenizer of {name} could not be loaded ({_first_line(error)}); connect to the network once, and "
            "install the package it names."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160].rstrip(".;")


def _check_activation(name: str, config: dict, quick_gelu: bool) -> None:
    """open_clip only warns, or for a file says nothing, when QuickGELU weights meet GELU (features at cosine 0.9999)."""
    if quick_gelu and not config.get("quick_gelu", False):
        raise FewshotError(f"these weights were trained with QuickGELU and {name} uses GELU; load '{name}-quickgelu'.")


def _build(config: dict, name: str) -> torch.nn.Module:
    import open_clip

    config = dict(config)
    custom = config.pop("custom_text", False) or "hf_model_name" in config.get("text_cfg", {})
    kind = open_clip.CustomTextCLIP if custom else open_clip.model.CLIP
    if "multimodal_cfg" in config:
        kind = open_clip.CoCa
    try:
        with torch.random.fork_rng(devices=[]):  # the random weights built here must not move the caller's generator
            return kind(**config)
    except (TypeError, AssertionError, AttributeError) as error:
        raise FewshotError(f"the configuration of {name} is no open_clip CLIP: {_first_line(error)}.") from error
    except (RuntimeError, ImportError) as error:  # a tower of a package that is not installed
        raise FewshotError(f"{name} cannot be built here ({_first_line(error)}).") from error


def _load(model: torch.nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items() if k not in OPENAI_EXTRAS}
    own = model.state_dict()
    for what, keys in (("lack", own.keys() - state.keys()), ("have an unexpected", state.keys() - own.keys())):
        if keys:
            raise FewshotError(
                f"the weights do not belong to {name}: they {what} {min(keys)!r}"
                + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
                + "; name the model they were saved from."
            )
    wrong = [k for k in own if own[k].shape != state[k].shape]
    if wrong:
        raise FewshotError(
            f"the weights do not belong to {name}: {wrong[0]!r} is {list(state[wrong[0]].shape)} in the file and "
            f"{list(own[wrong[0]].shape)} in the model; name the model they were saved from."
        )
    model.load_state_dict(state, strict=True)


class Clip:
    """A frozen CLIP. Not an nn.Module, so a method that keeps one never counts its weights among its own.

    `encode_image` and `encode_text` return features that are not normalised. `text` and `vision` are the towers that
    methods run with prompts or low-rank branches inside; `require_text`/`require_vision` refuse where there is none.
    """

    def __init__(self, model: torch.nn.Module, name: str, tokenizer=None, *, device=None) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.name, self.device = name, torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        text = getattr(model, "text", model)
        self.context_length = int(getattr(text, "context_length", 77))
        if tokenizer is None:
            import open_clip

            tokenizer = open_clip.SimpleTokenizer(context_length=self.context_length)
        self.tokenizer = tokenizer
        visual = model.visual
        size = getattr(visual, "image_size", 224)
        self.image_size = int(size[0] if isinstance(size, (tuple, list)) else size)
        self.image_mean = tuple(getattr(visual, "image_mean", None) or OPENAI_MEAN)
        self.image_std = tuple(getattr(visual, "image_std", None) or OPENAI_STD)
        self.text = TextTower(text) if TextTower.fits(text) else None
        self.vision = VisionTower(visual) if VisionTower.fits(visual) else None
        self.visual_kind = "vit" if self.vision else "resnet" if hasattr(visual, "attnpool") else "other"
        self.logit_scale = float(model.logit_scale.detach().double().exp())
        self.text_width = self.text.width if self.text else 0
        projection = getattr(text, "text_projection", None)
        if isinstance(projection, Tensor):
            self.embed_dim = projection.shape[1]
        else:
            self.embed_dim = self.encode_text(torch.zeros(1, self.context_length, dtype=torch.long)).shape[1]

    @classmethod
    def from_state_dict(cls, config: dict, state_dict: Mapping[str, Tensor], name: str, *, device=None) -> Clip:
        """Build from `open_clip.model.CLIP` arguments and weights in OpenAI's naming."""
        model = _build(config, name)
        _load(model, state_dict, name)
        return cls(model, name, device=device)

    def __repr__(self) -> str:
        return f"Clip({self.name!r}, {self.visual_kind}, {self.image_size} px, D={self.embed_dim}, {self.device})"

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the weights and the rest of what decides a feature: activation and preprocessing."""
        activation = type(self.vision.blocks[0].module.mlp.gelu).__name__ if self.vision else ""
        activation += type(self.text.blocks[0].module.mlp.gelu).__name__ if self.text else ""
        rest = repr((activation, self.image_size, self.image_mean, self.image_std))
        return hashlib.sha256((self.state_hash() + rest).encode()).hexdigest()[:16]

    def state_hash(self) -> str:
        """Hex digest over every weight and buffer, bit for bit; computed anew at each call."""
        digest = hashlib.sha256()
        for key, value in sorted(self.model.state_dict().items()):
            digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def cast(self, precision: str) -> Clip:
        """This CLIP, its towers at a precision: "bf16" is bfloat16 where autocast trusts it, out of weights that stay fp32.

        What encode_image and encode_text give is kept and shared between methods, and stays in fp32.
        """
        if precision == "fp32":
            return self
        other = copy.copy(self)
        other.text, other.vision = (tower and tower.cast(precision) for tower in (self.text, self.vision))
        return other

    def require_text(self, what: str) -> TextTower:
        """The text tower, or FewshotError when `what` cannot work on this model's text encoder."""
        if self.text is None:
            raise FewshotError(
                f"{what} needs a causal text encoder read at its end-of-text token, and that of {self.name} is "
                "not; use an OpenAI-style CLIP such as 'ViT-B-16-quickgelu'."
            )
        return self.text

    def require_vision(self, what: str) -> VisionTower:
        """The vision transformer, or FewshotError when this model's image encoder is something else."""
        if self.vision is None:
            raise FewshotError(
                f"{what} works on the blocks of a vision transformer, and {self.name} has "
                f"{'a ResNet' if self.visual_kind == 'resnet' else 'none'}; use a ViT such as 'ViT-B-16-quickgelu'."
            )
        return self.vision

    def tokenize(self, texts: Sequence[str], *, truncate: bool = False) -> Tensor:
        """Token ids [K, context_length] (int64) on the device. A text that does not fit raises FewshotError."""
        texts = list(texts)
        tokens = self.tokenizer(texts)
        if not truncate and hasattr(self.tokenizer, "encode"):
            for row in (tokens[:, -1] != 0).nonzero().flatten().tolist():  # a full row: it fits exactly, or it was cut
                length = len(self.tokenizer.encode(texts[row])) + 2
                if length > self.context_length:
                    raise FewshotError(
                        f"the prompt {texts[row][:60]!r}... has {length} tokens and the text encoder reads "
                        f"{self.context_length}; shorten it."
                    )
        return tokens.to(self.device)

    def check_pixels(self, pixels: Tensor) -> None:
        """FewshotError unless these are preprocessed pixels [B, 3, S, S]; S may differ where the encoder takes any size."""
        fixed = self.visual_kind != "other"
        good = isinstance(pixels, Tensor) and pixels.dim() == 4 and pixels.shape[1] == 3 and pixels.is_floating_point()
        if not good or (fixed and pixels.shape[2:] != (self.image_size, self.image_size)):
            size = self.image_size if fixed else "S"
            raise FewshotError(
                f"{self.name} takes preprocessed pixels [B, 3, {size}, {size}], not {_shown(pixels)}; give model.predict the "
                "pictures themselves, or fewshot.data.views.load_batch makes pixels of them."
            )

    def check_features(self, features: Tensor) -> None:
        """FewshotError unless these are image features [B, D]."""
        good = isinstance(features, Tensor) and features.dim() == 2 and features.is_floating_point()
        if not good or features.shape[1] != self.embed_dim:
            raise FewshotError(
                f"{self.name} has image features [B, {self.embed_dim}], not {_shown(features)}; encode_image makes them."
            )

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Features [B, D], not normalised, of preprocessed pixels [B, 3, S, S]."""
        self.check_pixels(pixels)
        pixels = pixels.to(self.device)
        return self.vision.cast("fp32").encode(pixels) if self.vision else self.model.encode_image(pixels)

    def encode_text(self, texts: Sequence[str] | Tensor, chunk: int = 256) -> Tensor:
        """Features [K, D], not normalised, of texts or of tokens [K, context_length]."""
        tokens = texts.to(self.device) if isinstance(texts, Tensor) else self.tokenize(texts)
        run = self.text.cast("fp32").encode_tokens if self.text else self.model.encode_text
        return torch.cat([run(part) for part in tokens.split(chunk)])

    @torch.no_grad()
    def zero_shot_weights(self, classnames: Sequence[str], templates: str | Sequence[str]) -> Tensor:
        """Unit class vectors [C, D]: normalise each prompt's feature, mean over the templates, normalise again.

        Averaging features that are not normalised is another classifier (it differs by 4e-2 on random weights).
        """
        templates = [templates] if isinstance(templates, str) else list(templates)
        names = [c.replace("_", " ") for c in classnames]
        features = self.encode_text([t.replace("{}", n) for n in names for t in templates])
        features = unit(features).reshape(len(names), len(templates), -1).mean(dim=1)
        return unit(features)


def _shown(x) -> str:
    """What was given instead, in a few words."""
    return (
        f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
    )


def unit(x: Tensor) -> Tensor:
    """Rows divided by their Euclidean length, plainly: no epsilon, as the papers' code."""
    return x / x.norm(dim=-1, keepdim=True)


class Block:
    """One pre-norm residual attention block, x += attn(ln_1(x)); x += mlp(ln_2(x)), run from its module's weights.

    An `adapter` (see fewshot.lora) replaces the projections: `project(h, attn, parts)` with parts of "qkv" and
    `out(o, attn)`. Attention is found by the attribute name `attn`; its class differs between open_clip versions.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.attn = module, module.attn
        self.heads = module.attn.num_heads
        self.quick = type(module.mlp.gelu).__name__ == "QuickGELU"

    @staticmethod
    def fits(module: torch.nn.Module) -> bool:
        attn, mlp = getattr(module, "attn", None), getattr(module, "mlp", None)
        if attn is None or mlp is None or hasattr(module, "ln_1_kv") or hasattr(module, "ln_attn"):
            return False
        if not all(hasattr(module, n) for n in ("ln_1", "ln_2", "ls_1", "ls_2")):
            return False
        if not all(hasattr(mlp, n) for n in ("c_fc", "gelu", "c_proj")) or len(mlp) != 3:
            return False
        if getattr(attn, "in_proj_weight", None) is None or getattr(attn, "in_proj_bias", None) is None:
            return False
        if getattr(attn, "bias_k", None) is not None or getattr(attn, "add_zero_attn", False):
            return False
        if any(getattr(attn, n, None) is not None for n in ("logit_scale", "head_scale")):
            return False
        own = (torch.nn.Identity, type(None))
        return all(isinstance(getattr(attn, n, None), own) for n in ("ln_q", "ln_k", "ln_inner"))

    def __call__(
        self,
        x: Tensor,
        *,
        past: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        row: Tensor | None = None,
        adapter=None,
        keep: bool = False,
        ragged: Ragged | None = None,
    ):
        """x [N, L, w] -> [N, L, w]; with `ragged` x and the result are [T, w], the rows end to end.

        `past` are keys and values [G, H, P, d] that stand before the own ones, each for N / G rows of x that follow each
        other; `mask` [.., L, L] is additive and for the own ones. `row` [N] are the only positions to compute, one per row,
        counted over all rows: the result is [N, w]. With `keep` the own keys and values are returned as well.
        """
        h = self.norm(x, self.module.ln_1)
        if row is None:
            q, k, v = self.project(h, "qkv", adapter)
        else:
            x, some = (t.flatten(0, -2).index_select(0, row).unsqueeze(1) for t in (x, h))
            (q,) = self.project(some, "q", adapter)
            k, v = self.project(h, "kv", adapter)
        if ragged is not None:
            q, k, v = (t if t.dim() == 3 else ragged.spread(t) for t in (q, k, v))
        q, k, v = self.split(q), self.split(k), self.split(v)
        own = (k, v)
        if past is None:
            o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        else:
            o = attend(q, k, v, past, mask)
        o = o.transpose(1, 2).flatten(2)
        if ragged is not None and row is None:
            o = ragged.pack(o)
        o = adapter.out(o, self.attn) if adapter is not None else F.linear(o, *_linear(self.attn.out_proj))
        x = x + self.module.ls_1(o)
        x = x + self.module.ls_2(self.mlp(self.norm(x, self.module.ln_2)))
        if row is not None:
            x = x.squeeze(1)
        return (x, own) if keep else x

    def keys(self, x: Tensor, adapter=None) -> tuple[Tensor, Tensor]:
        """Keys and values [N, H, L, d] of x [N, L, w], for a block whose output at these positions is not needed."""
        k, v = self.project(self.norm(x, self.module.ln_1), "kv", adapter)
        return self.split(k), self.split(v)

    def split(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        return x.view(n, length, self.heads, width // self.heads).transpose(1, 2)

    def project(self, h: Tensor, parts: str, adapter=None) -> Sequence[Tensor]:
        if adapter is not None:
            return adapter.project(h, self.attn, parts)
        return project(h, self.attn.in_proj_weight, self.attn.in_proj_bias, parts)

    @staticmethod
    def norm(x: Tensor, ln: torch.nn.LayerNorm) -> Tensor:
        return F.layer_norm(x, ln.normalized_shape, ln.weight, ln.bias, ln.eps)

    def mlp(self, h: Tensor) -> Tensor:
        mlp = self.module.mlp
        if not self.quick:
            return mlp(h)
        (w1, b1), (w2, b2) = _linear(mlp.c_fc), _linear(mlp.c_proj)
        flat = h.reshape(-1, h.shape[-1])
        inner = F.silu(torch.addmm(b1, flat, w1.t(), beta=1.702, alpha=1.702))
        return torch.addmm(b2, inner, w2.t(), alpha=1 / 1.702).view(h.shape)


def attend(q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """Attention [N, H, L, d] of q to `past` [G, H, P, d] whole, and to the own k and v [N, H, S, d] under `mask`.

    The N = G K rows of a prefix meet its keys in one product [K L, d] x [d, P] per head: what they share is never copied,
    and its gradient comes summed. `mask` is [L, S], or [N, 1, L, S].
    """
    groups, p, scale = past[0].shape[0], past[0].shape[2], q.shape[-1] ** -0.5

    def by_group(x: Tensor) -> Tensor:  # [G, H, K, .., ..]
        return x.unflatten(0, (groups, -1)).transpose(1, 2)

    q, k, v = by_group(q * scale).contiguous(), by_group(k).contiguous(), by_group(v).contiguous()
    shared = (q.flatten(2, 3) @ past[0].mT).view(*q.shape[:-1], p)  # [G, H, K, L, P]
    own = q @ k.mT + (mask if mask.dim() == 2 else by_group(mask))  # [G, H, K, L, S]
    weights = torch.cat((shared, own), dim=-1).softmax(dim=-1)
    shared, own = weights[..., :p], weights[..., p:]
    o = (shared.flatten(2, 3) @ past[1]).view(q.shape) + own @ v
    return o.transpose(1, 2).flatten(0, 1)


def _linear(module: torch.nn.Linear) -> tuple[Tensor, Tensor]:
    return module.weight, module.bias


def project(h: Tensor, weight: Tensor, bias: Tensor, parts: str) -> Sequence[Tensor]:
    """Rows q, k, v of a stacked projection [3w, w] applied to h [.., w]; `parts` is "qkv", "q" or "kv"."""
    width = weight.shape[1]
    rows = {"qkv": slice(None), "q": slice(0, width), "kv": slice(width, None)}[parts]
    return F.linear(h, weight[rows], bias[rows]).chunk(len(parts), dim=-1)


class Tower:
    """What both encoders have: standard blocks, and a precision at which they are run."""

    precision = "fp32"

    def cast(self, precision: str):
        """The same tower at a precision, see Clip.cast."""
        if precision == self.precision:
            return self
        other = copy.copy(self)
        other.precision = precision
        return other

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """What its blocks are run under; features leave it in fp32."""
        return autocast(device, self.precision)


PRECISIONS = ("fp32", "bf16")


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Products in bfloat16, and sums, norms and softmaxes as torch.autocast chooses them; nothing for "fp32"."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


class TextTower(Tower):
    """The causal text encoder, run on embeddings so that learned vectors can stand among them.

    Positions are counted from the start-of-text token; a positional embedding is added here and not by the caller.
    `adapters` has one entry (or None) per block. `deep` maps a block index to vectors [.., n, w] that overwrite
    positions 1..n of the residual stream before that block.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.blocks = [Block(b) for b in module.transformer.resblocks]
        self.width = module.transformer.width
        self.pool = _pool_type(module)
        self.packs = True  # rows of different lengths lie end to end; False: padded, for comparison
        self.lifted = False  # fed with states in front of a block, see `above`
        self.masks: dict = {}
        self.budget: float | None = None  # bytes that the activations of a training pass may take; None: BUDGET
        self._known = WeakTensorKeyDictionary()  # what follows from where prompts end, by that tensor

    @staticmethod
    def fits(module: torch.nn.Module) -> bool:
        """True for a causal mask, pooling at EOT, nothing appended to the sequence, and standard blocks."""
        mask = getattr(module, "attn_mask", None)
        if _pool_type(module) not in ("argmax", "eos") or not isinstance(mask, Tensor) or mask.dim() != 2:
            return False
        if getattr(module, "cls_emb", None) is not None or getattr(module, "use_pad_mask", False):
            return False
        if not hasattr(module, "transformer") or not all(Block.fits(b) for b in module.transformer.resblocks):
            return False
        causal = torch.full_like(mask, float("-inf")).triu_(1)
        return torch.equal(mask, causal) and isinstance(module.text_projection, (Tensor, torch.nn.Linear, type(None)))

    def eot(self, tokens: Tensor) -> Tensor:
        """Position [K] of the end-of-text token, which has the largest id (or a given one) and is found first."""
        if self.pool == "eos":
            eos = getattr(self.module, "eos_id", None) or getattr(self.module, "text_eos_id", None)
            return (tokens == eos).int().argmax(dim=-1)
        return tokens.argmax(dim=-1)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token embeddings [K, L, w] of ids [K, L], without positions."""
        return self.module.token_embedding(tokens)

    def encode_tokens(
        self, tokens: Tensor, *, share: bool = True, adapters: Sequence | None = None, fast: bool = True, chunk: int = 0
    ) -> Tensor:
        """Features [K, D] of tokens [K, L], cut at the longest EOT; with `share` the common first tokens run once."""
        if not fast:
            return self.encode(self.embed(tokens), self.eot(tokens), adapters=adapters, fast=False)
        eot = self.eot(tokens)
        tokens = tokens[:, : int(eot.max()) + 1]
        shared = common_prefix(tokens, eot) if share else 0
        return self.encode(self.embed(tokens), eot, shared, adapters=adapters, chunk=chunk)

    def encode(
        self, embeddings: Tensor, eot: Tensor, shared: int = 0, *, deep: Mapping[int, Tensor] | None = None,
        adapters: Sequence | None = None, fast: bool = True, chunk: int = 0,
    ) -> Tensor:  # fmt: skip
        """Features [.., K, D] of embeddings [.., K, L, w] whose prompts end at position eot [K] (L > max(eot)).

        The first `shared` positions must be equal in all K rows (per leading index), and end before every EOT; they
        run once. `fast=False` is the plain encoder, for comparison. `chunk` as in `features`.
        """
        groups, (k, length, width) = embeddings.shape[:-3], embeddings.shape[-3:]
        if not fast:
            x = embeddings.reshape(-1, length, width)
            out = self._plain(x, eot.repeat(x.shape[0] // k), deep, adapters)
            return out.view(*groups, k, -1)
        if deep and shared <= max(new.shape[-2] for new in deep.values()):
            shared = 0  # deep vectors would be overwritten partly in the prefix and partly after it
        prefix = embeddings[..., 0, :shared, :].reshape(-1, shared, width) if shared else None
        suffix = embeddings[..., shared:, :].reshape(-1, k, length - shared, width)
        return self.features(prefix, suffix, eot, deep=deep, adapters=adapters, chunk=chunk).view(*groups, k, -1)

    def features(
        self, prefix: Tensor | None, suffix: Tensor, eot: Tensor, *, deep: Mapping[int, Tensor] | None = None,
        adapters: Sequence | None = None, chunk: int = 0,
    ) -> Tensor:  # fmt: skip
        """Features [G, K, D] of G prefixes [G, P, w] (or None) with K suffixes each, [G, K, S, w], EOT at eot [K] or [G, K].

        A pass that trains goes in pieces of at most `chunk` of the K prompts (0: as many as the `budget` holds), whose
        activations are computed again on the way back. Where the memory turns out to hold fewer, a warning says so once,
        and the pieces become smaller. The result is the same. Raises FewshotError when a single one does not fit.
        """
        known = self._about(eot)
        while True:
            try:
                most = min(filter(None, (chunk, known.most, self._affordable(prefix, suffix, known, adapters))), default=0)
                with self.autocast(suffix.device):
                    found = self._pieces(prefix, suffix, known, most, deep, adapters)
                return found if found.dtype == suffix.dtype else found.to(suffix.dtype)
            except torch.OutOfMemoryError as error:
                known.shrink(most or suffix.shape[1], error)
            # out here, where the exception no longer holds on to the tensors of the attempt
            if suffix.is_cuda:
                torch.cuda.empty_cache()

    def _pieces(self, prefix, suffix: Tensor, known: Known, most: int, deep, adapters) -> Tensor:
        groups, k = suffix.shape[:2]
        count = -(-k // (most or k))
        if count == 1:
            return self.run(prefix, suffix.flatten(0, 1), known.part(0, k), deep=deep, adapters=adapters).view(groups, k, -1)

        def run(part: Tensor, eot: Tensor) -> Tensor:
            return self.run(prefix, part.flatten(0, 1), eot, deep=deep, adapters=adapters).view(groups, part.shape[1], -1)

        cuts = [i * k // count for i in range(count + 1)]
        parts = [(suffix[:, a:b], known.part(a, b)) for a, b in pairwise(cuts)]
        again = torch.is_grad_enabled()
        return torch.cat([checkpoint(run, *part, use_reentrant=False) if again else run(*part) for part in parts], dim=1)

    def _affordable(self, prefix, suffix: Tensor, known: Known, adapters) -> int:
        """How many of the K prompts the budget holds, at least one; 0: all, or nothing is kept for a way back."""
        if not torch.is_grad_enabled():
            return 0
        groups, k, longest, _ = suffix.shape
        p = 0 if prefix is None else prefix.shape[1]
        s = known.mean - p if self.packs else longest
        cost = groups * self.held(s, longest, p, adapters is not None) * suffix.element_size()
        budget = default_budget(suffix.device) if self.budget is None else self.budget
        return 0 if k * cost <= budget else max(1, int(budget // cost))

    def held(self, s: float, longest: int, p: int, adapted: bool) -> float:
        """Numbers that a prompt of s positions leaves for the way back, about, where the longest has `longest`.

        A position leaves the inputs of both layer norms and of the activation (2 + 4 widths), and with low-rank branches
        under dropout three masks and three inputs more (6). Attention is padded: q, k, v, and its result where the kernel
        keeps it, or behind a prefix of p positions its weights, whole and in the two parts.
        """
        packed = s * self.width * (12 if adapted else 6)
        padded = longest * (3 * self.width + (2 * self.blocks[0].heads * (p + longest) if p else self.width))
        return len(self.blocks) * (packed + padded)

    def _about(self, eot: Tensor) -> Known:
        if eot not in self._known:
            self._known[eot] = Known(eot)
        return self._known[eot]

    @torch.no_grad()
    def above(self, embeddings: Tensor, first: int) -> tuple[TextTower, Tensor]:
        """The tower from block `first` on, and what comes to it there of embeddings [K, L, w]: a constant while all below is
        frozen, so that nothing below is run again.
        """
        if first == 0:
            return self, embeddings
        upper = copy.copy(self)
        upper.blocks, upper.lifted = self.blocks[first:], True
        x = embeddings + self.module.positional_embedding[: embeddings.shape[1]]
        for block in self.blocks[:first]:
            x = torch.cat([block(part, causal=True) for part in x.split(256)])
        return upper, x

    def run(self, prefix: Tensor | None, suffix: Tensor, eot: Tensor, *, deep=None, adapters=None) -> Tensor:
        """Features [G*K, D] of G prefixes [G, P, w] (or None) with K suffixes each, [G*K, S, w], EOT at eot [K] or [G*K]."""
        positions = self.module.positional_embedding
        s, p = suffix.shape[1], 0 if prefix is None else prefix.shape[1]
        inside = bool(deep) and p <= max(new.shape[-2] for new in deep.values())  # deep vectors overwrite the suffixes
        seen, row, ragged = self._about(eot).layout(p, *suffix.shape[:2], suffix.dtype, pack=self.packs and not inside)
        x = suffix if self.lifted else suffix + positions[p : p + s]
        if ragged is not None:
            x = ragged.pack(x)
            adapters = adapters and [a and a.over(ragged) for a in adapters]
        if prefix is not None and not self.lifted:
            prefix = prefix + positions[:p]
        mask = self._mask(s, x) if p else None
        past = None
        for i, block in enumerate(self.blocks):
            last, adapter = i == len(self.blocks) - 1, adapters[i] if adapters is not None else None
            if deep and i in deep:
                if inside:
                    x = _overwrite(x, deep[i])
                else:
                    prefix = _overwrite(prefix, deep[i])
            if p:
                if last:
                    past = block.keys(prefix, adapter)
                else:
                    prefix, past = block(prefix, causal=True, adapter=adapter, keep=True)
            if last:
                x = block(x, past=past, mask=seen, row=row, adapter=adapter, ragged=ragged)
            else:
                x = block(x, past=past, mask=mask, causal=not p, adapter=adapter, ragged=ragged)
        return self._head(x)

    def _mask(self, s: int, like: Tensor) -> Tensor:
        """Additive [s, s]: position i sees positions up to i."""
        key = (s, like.dtype, like.device)
        if key not in self.masks:
            with torch.inference_mode(False):  # a mask made for evaluation serves training too
                self.masks[key] = torch.full((s, s), -torch.inf, dtype=like.dtype, device=like.device).triu_(1)
        return self.masks[key]

    def states(self, tokens: Tensor) -> Tensor:
        """What the text projection is applied to: the normalised EOT rows [K, w] of tokens [K, L]."""
        tower = copy.copy(self)
        tower.project = lambda x: x
        return tower.encode_tokens(tokens)

    def sequence(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """States [K, L, w] at every position after the last norm, cut at the longest EOT; mask [K, L], True up to EOT."""
        eot = self.eot(tokens)
        tokens = tokens[:, : int(eot.max()) + 1]
        x = self.embed(tokens) + self.module.positional_embedding[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, causal=True)
        mask = torch.arange(tokens.shape[1], device=tokens.device) <= eot[:, None]
        return Block.norm(x, self.module.ln_final), mask

    def project(self, x: Tensor) -> Tensor:
        """Features [K, D] of states [K, w]."""
        projection = self.module.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, torch.nn.Linear) else x @ projection

    def _head(self, x: Tensor) -> Tensor:
        return self.project(Block.norm(x, self.module.ln_final))

    def _plain(self, x: Tensor, eot: Tensor, deep, adapters) -> Tensor:
        length = x.shape[1]
        mask = self.module.attn_mask[:length, :length].to(x.dtype)
        x = x + self.module.positional_embedding[:length]
        for i, block in enumerate(self.blocks):
            if deep and i in deep:
                x = _overwrite(x, deep[i])
            if adapters is not None and adapters[i] is not None:
                x = block(x, mask=mask, adapter=adapters[i])
            else:
                x = block.module(x, attn_mask=mask)
        x = x[torch.arange(x.shape[0], device=x.device), eot]
        return self._head(x)


BUDGET = 4 * 2**30


def default_budget(device: torch.device) -> float:
    """Bytes for the activations of a text pass: 4 GiB, or half of a GPU."""
    return torch.cuda.get_device_properties(device).total_memory / 2 if device.type == "cuda" else BUDGET


def _pool_type(module: torch.nn.Module) -> str | None:
    return getattr(module, "text_pool_type", getattr(module, "pool_type", None))


def common_prefix(tokens: Tensor, eot: Tensor) -> int:
    """Number of first positions at which all rows of tokens [K, L] agree, ending before the first EOT."""
    if tokens.shape[0] < 2:
        return 0
    differ = (tokens != tokens[:1]).any(dim=0).int()
    agree = int(differ.argmax()) if bool(differ.any()) else tokens.shape[1]
    return min(agree, int(eot.min()))


def _overwrite(x: Tensor, new: Tensor) -> Tensor:
    """x [N, L, w] with positions 1..n replaced by new [n, w] or [N, n, w]."""
    n = new.shape[-2]
    return torch.cat((x[:, :1], new.expand(x.shape[0], n, -1), x[:, 1 + n :]), dim=1)


class VisionTower(Tower):
    """The vision transformer. There is no mask here: only the last block can be restricted, to the class token."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.blocks = [Block(b) for b in module.transformer.resblocks]
        self.width = module.transformer.width

    @staticmethod
    def fits(module: torch.nn.Module) -> bool:
        """True for a ViT read at its class token, without attention pooling, made of standard blocks."""
        if not all(hasattr(module, n) for n in ("conv1", "class_embedding", "ln_pre", "ln_post", "transformer")):
            return False
        if getattr(module, "attn_pool", None) is not None or getattr(module, "pool_type", None) != "tok":
            return False
        if getattr(module, "output_tokens", False):
            return False
        return all(Block.fits(b) for b in module.transformer.resblocks)

    def embed(self, pixels: Tensor) -> Tensor:
        """Class token and patch tokens [B, 1 + P, w] with positions, before `ln_pre`."""
        m = self.module
        x = m.conv1(pixels).flatten(2).transpose(1, 2)
        token = m.class_embedding.expand(x.shape[0], 1, -1)
        return torch.cat((token, x), dim=1) + m.positional_embedding

    def encode(
        self, pixels: Tensor, *, adapters: Sequence | None = None, prompts: Tensor | None = None,
        deep: Mapping[int, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Features [B, D] of pixels [B, 3, S, S].

        `prompts` [n, w] are appended after the patches, before `ln_pre` and without a position; `deep` maps a block
        index to vectors [n, w] that replace the last n tokens before that block. With M sets of prompts, [M, n, w], the
        features are [M, B, D] and the patches are embedded once.
        """
        with self.autocast(pixels.device):
            found = self._encode(pixels, adapters, prompts, deep)
        return found if found.dtype == pixels.dtype else found.to(pixels.dtype)

    def _encode(self, pixels: Tensor, adapters: Sequence | None, prompts: Tensor | None, deep) -> Tensor:
        x = self.module.ln_pre(self.embed(pixels))
        sets, count = () if prompts is None else prompts.shape[:-2], x.shape[0]
        if prompts is not None:
            new = self.module.ln_pre(prompts).unsqueeze(-3).expand(*sets, count, -1, -1)
            x = torch.cat((x.expand(*sets, -1, -1, -1), new), dim=-2).flatten(0, -3)
        row = x.shape[1] * torch.arange(x.shape[0], device=x.device)  # the class tokens, counted over all tokens
        for i, block in enumerate(self.blocks):
            if deep and i in deep:
                new = deep[i].expand(x.shape[0], *deep[i].shape[-2:])
                x = torch.cat((x[:, : -new.shape[1]], new), dim=1)
            last = i == len(self.blocks) - 1
            x = block(x, adapter=adapters[i] if adapters is not None else None, row=row if last else None)
        x = Block.norm(x, self.module.ln_post).view(*sets, count, x.shape[-1])
        return x if self.module.proj is None else x @ self.module.proj
