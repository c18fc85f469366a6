"""Read a CLIP weight file without ever running what stands in it, and tell the architecture from its shapes.

Three formats: `.safetensors`; a PyTorch pickle, read with `weights_only=True`; and the TorchScript archives in which
OpenAI distributes its models, of which only the tensors are read (the program inside is neither run nor compiled).
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

from fewshot.errors import FewshotError
from fewshot.paths import path_of

OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")  # scalars in OpenAI's own files only


def read_state_dict(path: str | Path) -> tuple[dict[str, torch.Tensor], bool]:
    """Tensors of a weight file in OpenAI naming, as stored, and whether the file is one of OpenAI's own.

    Raises FewshotError when the file is missing, damaged, or a pickle with anything but tensors in it.
    """
    path = path_of(path)
    if not path.is_file():
        raise FewshotError(f"the weight file {path} does not exist; give the path of a .safetensors or .pt file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state, archive = load_file(path), False
        elif _is_torchscript(path):
            state, archive = _read_torchscript(path), True
        else:
            state, archive = torch.load(path, map_location="cpu", weights_only=True), False
    except pickle.UnpicklingError as error:
        raise FewshotError(
            f"{path} is damaged or holds Python objects that would run on loading; convert it to .safetensors where "
            "you trust it."
        ) from error
    except Exception as error:  # each reader has its own way to say that a file is damaged
        raise FewshotError(f"{path} cannot be read as model weights, it is damaged or not a weight file.") from error
    for key in ("state_dict", "model"):  # training checkpoints of open_clip and others
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values() if v is not None):
        raise FewshotError(f"{path} holds no state dict of tensors; save model.state_dict() and give that file.")
    state = {k.removeprefix("module."): v for k, v in state.items() if isinstance(v, torch.Tensor)}
    openai = archive or any(k in state for k in OPENAI_EXTRAS)
    return {k: v for k, v in state.items() if k not in OPENAI_EXTRAS}, openai


def origin(path: str | Path) -> str:
    """What a weight file is: "openai" for one of OpenAI's own (by its sha256), else the note "origin" in the header of a
    .safetensors file (`save_file(state, path, metadata={"origin": "random weights"})`), else "weights NAME".
    """
    path = path_of(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                if note := (file.metadata() or {}).get("origin"):
                    return note
        except (OSError, SafetensorError):
            pass  # loading it says what is wrong
    elif _sha256(path) in _openai_hashes():
        return "openai"
    return f"weights {path.name}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _openai_hashes() -> set[str]:
    """OpenAI's addresses name the sha256 of the file: .../models/SHA256/ViT-B-16.pt."""
    import open_clip

    addresses = [open_clip.pretrained.get_pretrained_url(model, "openai") for model in open_clip.list_models()]
    return {address.split("/")[-2] for address in addresses if "openaipublic" in address}


def config_from_state_dict(state: dict[str, torch.Tensor], quick_gelu: bool) -> dict:
    """`open_clip.model.CLIP` arguments that fit the shapes of an OpenAI-named state dict.

    The number of heads is not stored in such files; it is width / 64 in every released model (attention pool of a
    ResNet: width * 32 / 64), with one head for narrower ones. Raises FewshotError for another architecture.
    """
    try:
        embed_dim = state["text_projection"].shape[1]
        context_length, width = state["positional_embedding"].shape
        vocab_size = state["token_embedding.weight"].shape[0]
        text = dict(
            context_length=context_length, vocab_size=vocab_size, width=width,
            heads=max(1, width // 64), layers=_count(state, "transformer.resblocks."),
        )  # fmt: skip
        if "visual.proj" in state:
            vision_width, _, patch, _ = state["visual.conv1.weight"].shape
            grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
            vision = dict(
                image_size=grid * patch, patch_size=patch, width=vision_width,
                head_width=min(64, vision_width), layers=_count(state, "visual.transformer.resblocks."),
            )  # fmt: skip
        else:
            vision_width = state["visual.layer1.0.conv1.weight"].shape[0]
            grid = round((state["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
            layers = tuple(_count(state, f"visual.layer{i}.") for i in (1, 2, 3, 4))
            vision = dict(image_size=grid * 32, width=vision_width, layers=layers)
            if vision_width * 32 < 64:
                vision["head_width"] = vision_width * 32
    except KeyError as error:
        raise FewshotError(
            f"the weights have no {error.args[0]!r}, so they are not a CLIP in OpenAI's naming; name the model they "
            "belong to and load it through open_clip."
        ) from None
    return dict(embed_dim=embed_dim, vision_cfg=vision, text_cfg=text, quick_gelu=quick_gelu)


def _count(state: dict, prefix: str) -> int:
    return len({k[len(prefix) :].split(".")[0] for k in state if k.startswith(prefix)})


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/", 1)[-1] == "constants.pkl" for name in archive.namelist())


class _Object:
    """Stands for any scripted module: an attribute holder whose class is never looked up."""

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)


class _TensorsOnly(pickle.Unpickler):
    """Allows what a TorchScript archive needs to hold tensors, and nothing else."""

    def __init__(self, file, storage) -> None:
        super().__init__(file, encoding="utf-8")
        self.storage = storage

    def find_class(self, module: str, name: str):
        if module.startswith("__torch__"):
            return _Object
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")):
            return _rebuild_tensor if name == "_rebuild_tensor_v2" else lambda data, *_: data
        if module == "torch.jit._pickle":  # typed empty lists and the like
            return lambda data=None, *_: data
        if module == "torch" and name.endswith("Storage"):
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not part of a weight file")

    def persistent_load(self, key):
        return self.storage(key)


_DTYPES = dict(
    FloatStorage=torch.float32, HalfStorage=torch.float16, DoubleStorage=torch.float64, BFloat16Storage=torch.bfloat16,
    LongStorage=torch.int64, IntStorage=torch.int32, ByteStorage=torch.uint8, BoolStorage=torch.bool,
)  # fmt: skip


def _rebuild_tensor(storage: torch.Tensor, offset: int, size: tuple, stride: tuple, *_) -> torch.Tensor:
    return storage.as_strided(size, stride, offset)  # raises when the storage is too short


def _read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(path) as archive:
        root = next(n for n in archive.namelist() if n.endswith("/constants.pkl")).rsplit("/", 1)[0]
        loaded: dict[str, torch.Tensor] = {}

        def storage(key):
            _, kind, name, _, numel = key  # ("storage", "FloatStorage", "17", "cpu", count)
            if name not in loaded:
                raw = bytearray(archive.read(f"{root}/data/{name}"))
                loaded[name] = torch.frombuffer(raw, dtype=_DTYPES[kind], count=numel) if numel else torch.empty(0)
            return loaded[name]

        with archive.open(f"{root}/data.pkl") as file:
            tree = _TensorsOnly(file, storage).load()
    state: dict[str, torch.Tensor] = {}

    def walk(node, prefix: str) -> None:
        for name, value in vars(node).items():
            if isinstance(value, torch.Tensor):
                state[prefix + name] = value.clone()
            elif isinstance(value, _Object):
                walk(value, f"{prefix}{name}.")
            elif name in OPENAI_EXTRAS:
                state[prefix + name] = torch.tensor(value)

    walk(tree, "")
    return state
