"""Loading a CLIP: the right model from every kind of file, and one sentence for every wrong one."""

import json
import pickle
import shutil

import pytest
import tiny
import torch
from safetensors.torch import save_file

from fewshot.clip import Clip, load_clip, unit
from fewshot.errors import FewshotError
from fewshot.weights import config_from_state_dict, read_state_dict


@pytest.fixture
def registered(tmp_path_factory):
    """open_clip knows tiny-model (GELU), tiny-model-quickgelu and tiny-resnet-quickgelu while a test runs."""
    import open_clip
    from open_clip import factory

    folder = tmp_path_factory.mktemp("configs")
    made = {
        "tiny-model": tiny.config(quick_gelu=False),
        "tiny-model-quickgelu": tiny.config(),
        "tiny-resnet-quickgelu": tiny.config("resnet"),
    }
    for name, config in made.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    known, paths = dict(factory._MODEL_CONFIGS), list(factory._MODEL_CONFIG_PATHS)
    open_clip.add_model_config(folder)
    yield
    factory._MODEL_CONFIGS.clear()
    factory._MODEL_CONFIGS.update(known)
    factory._MODEL_CONFIG_PATHS[:] = paths


def openai_extras() -> dict:
    return {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77), "vocab_size": torch.tensor(49408)}


class Archive(torch.nn.Module):
    """A model with OpenAI's three attributes, to be stored as they store theirs."""

    def __init__(self, model):
        super().__init__()
        for name, child in model.named_children():
            setattr(self, name, child)
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            setattr(self, name, getattr(model, name))
        self.input_resolution, self.context_length, self.vocab_size = 32, 77, 49408

    def forward(self, x: torch.Tensor):
        return x


def archive(path, kind="vit"):
    import open_clip

    model = open_clip.model.CLIP(**tiny.config(kind))
    model.load_state_dict(tiny.weights(kind))
    torch.jit.script(Archive(model).half()).save(str(path))
    return path


def same(clip: Clip, other: Clip, bound=0.0):
    x = torch.randn(2, 3, other.image_size, other.image_size, generator=torch.Generator().manual_seed(0))
    for a, b in (
        (clip.encode_image(x), other.encode_image(x)),
        (clip.encode_text(["a cat"]), other.encode_text(["a cat"])),
    ):
        assert (a - b).abs().max() <= bound


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_a_file_in_openai_naming_loads_into_the_named_model(registered, tmp_path, kind):
    save_file(tiny.weights(kind), tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in tiny.weights(kind).items()}}, tmp_path / "w.pt")
    name = "tiny-model-quickgelu" if kind == "vit" else "tiny-resnet-quickgelu"
    for file in ("w.safetensors", "w.pt"):
        clip = load_clip(name, str(tmp_path / file), device="cpu")
        same(clip, tiny.clip(kind))
        assert clip.fingerprint == tiny.clip(kind).fingerprint
        assert clip.visual_kind == kind and clip.embed_dim == 32


def test_openai_files_lose_their_three_scalars_and_need_no_name(tmp_path):
    torch.save({**tiny.weights(), **openai_extras()}, tmp_path / "ViT.pt")
    clip = load_clip(str(tmp_path / "ViT.pt"), device="cpu")
    # heads are not in a file: width / 64, here one where the tiny model has two
    config = tiny.config(heads=1)
    config["vision_cfg"] = {**config["vision_cfg"], "head_width": 64}
    same(clip, Clip.from_state_dict(config, tiny.weights(), "one head", device="cpu"))


def test_openai_archives_are_read_without_running_them(registered, tmp_path, monkeypatch):
    path = archive(tmp_path / "ViT.pt")
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("the program in the archive was loaded"))
    state, openai = read_state_dict(path)
    want = tiny.weights()
    assert openai and state.keys() == want.keys()
    for key, value in state.items():
        assert torch.equal(value.float(), want[key].half().float()), key
    same(load_clip("tiny-model-quickgelu", str(path), device="cpu"), tiny.clip(), bound=0.05)


class Payload:
    def __reduce__(self):
        return (open, ("/tmp/fewshot-must-not-exist", "w"))


def test_a_pickle_with_code_in_it_is_refused_and_not_run(registered, tmp_path):
    import os

    torch.save({"visual.proj": Payload()}, tmp_path / "evil.pt")
    (tmp_path / "evil2.pt").write_bytes(pickle.dumps(Payload()))
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(FewshotError, match="would run on loading; convert it to .safetensors"):
            load_clip("tiny-model-quickgelu", str(tmp_path / name))
    # the same inside something that looks like an archive
    import zipfile

    with zipfile.ZipFile(tmp_path / "evil3.pt", "w") as z:
        z.writestr("a/constants.pkl", b"")
        z.writestr("a/data.pkl", pickle.dumps(Payload(), protocol=2))
    with pytest.raises(FewshotError, match="would run on loading"):
        load_clip("tiny-model-quickgelu", str(tmp_path / "evil3.pt"))
    assert not os.path.exists("/tmp/fewshot-must-not-exist")


def test_damaged_and_missing_files_are_one_sentence(registered, tmp_path):
    good = tmp_path / "good.safetensors"
    save_file(tiny.weights(), good)
    (tmp_path / "torn.safetensors").write_bytes(good.read_bytes()[:1000])
    (tmp_path / "text.pt").write_text("hello")
    whole = archive(tmp_path / "whole.pt").read_bytes()
    (tmp_path / "torn.pt").write_bytes(whole[: len(whole) // 2])
    for name in ("torn.safetensors", "text.pt", "torn.pt"):
        with pytest.raises(FewshotError, match="damaged") as caught:
            load_clip("tiny-model-quickgelu", str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    for name in ("none.safetensors", "none.pt"):
        with pytest.raises(FewshotError, match="does not exist"):
            load_clip("tiny-model-quickgelu", str(tmp_path / name))


def test_weights_of_another_architecture_are_refused_by_name_and_shape(registered, tmp_path):
    save_file(tiny.weights(), tmp_path / "vit.safetensors")
    save_file(tiny.weights("resnet"), tmp_path / "resnet.safetensors")
    small = tiny.weights(width=32, heads=1)
    save_file(small, tmp_path / "small.safetensors")
    cases = {
        "resnet": "they lack 'visual.class_embedding'",
        "small": "'positional_embedding' is \\[77, 32\\] in the file",
    }
    for file, says in cases.items():
        with pytest.raises(FewshotError, match=f"do not belong to tiny-model-quickgelu: {says}") as caught:
            load_clip("tiny-model-quickgelu", str(tmp_path / f"{file}.safetensors"))
        assert "\n" not in str(caught.value)
    with pytest.raises(FewshotError, match="not a CLIP in OpenAI's naming"):
        config_from_state_dict({"fc.weight": torch.zeros(2, 2)}, quick_gelu=True)


def test_openai_weights_in_a_gelu_model_are_refused(registered, tmp_path):
    torch.save({**tiny.weights(), **openai_extras()}, tmp_path / "w.pt")
    with pytest.raises(FewshotError, match="load 'tiny-model-quickgelu'"):
        load_clip("tiny-model", str(tmp_path / "w.pt"))
    with pytest.raises(FewshotError, match="load 'ViT-B-16-quickgelu'"):
        load_clip("ViT-B-16", "openai")
    with pytest.raises(FewshotError, match="load 'ViT-H-14-quickgelu'"):
        load_clip("ViT-H-14", "dfn5b")


def test_a_file_that_does_not_say_its_activation_needs_a_model_name(tmp_path):
    save_file(tiny.weights(), tmp_path / "w.safetensors")
    with pytest.raises(FewshotError, match="does not say which activation"):
        load_clip(str(tmp_path / "w.safetensors"))


def test_unknown_names_are_met_with_the_nearest(registered):
    with pytest.raises(FewshotError, match="did you mean 'ViT-B-16'"):
        load_clip("ViT-B-17", "openai")
    with pytest.raises(
        FewshotError, match="unknown pretrained tag of ViT-B-16-quickgelu 'opneai'.*did you mean 'openai'"
    ):
        load_clip("ViT-B-16-quickgelu", "opneai")
    with pytest.raises(FewshotError, match="needs weights"):
        load_clip("ViT-B-16-quickgelu")


def test_weights_that_cannot_be_downloaded_name_the_way_out(monkeypatch):
    import open_clip

    def offline(*args, **kwargs):
        raise RuntimeError("no network\nsecond line")

    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(FewshotError, match="could not be loaded .no network.*local weight file") as caught:
        load_clip("ViT-B-16-quickgelu", "openai")
    assert "\n" not in str(caught.value)


def test_loading_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    Clip.from_state_dict(tiny.config(), tiny.weights(), "x", device="cpu")
    assert torch.equal(state, torch.get_rng_state())


def test_fingerprint_sees_weights_and_activation():
    weights = tiny.weights()
    base = Clip.from_state_dict(tiny.config(), weights, "a", device="cpu")
    assert base.fingerprint == tiny.clip().fingerprint and len(base.fingerprint) == 16
    gelu = Clip.from_state_dict(tiny.config(quick_gelu=False), weights, "a", device="cpu")
    weights["logit_scale"] = weights["logit_scale"] + 1e-6
    other = Clip.from_state_dict(tiny.config(), weights, "a", device="cpu")
    assert len({base.fingerprint, gelu.fingerprint, other.fingerprint}) == 3
    assert base.state_hash() == gelu.state_hash() != other.state_hash()


def test_prompts_that_do_not_fit_are_refused_and_those_that_just_fit_are_not():
    clip = tiny.clip()
    assert clip.tokenize(["x " * 75])[0, -1] == 49407
    with pytest.raises(FewshotError, match="has 78 tokens and the text encoder reads 77"):
        clip.tokenize(["fine", "x " * 76])
    assert clip.tokenize(["x " * 200], truncate=True).shape == (1, 77)


def test_zero_shot_weights_equal_open_clips_classifier():
    import open_clip

    clip, templates = tiny.clip(), ("a photo of a {}.", "art of the {}.")
    names = [n.replace("_", " ") for n in tiny.NAMES]
    functions = [lambda name, t=t: t.replace("{}", name) for t in templates]
    want = open_clip.build_zero_shot_classifier(clip.model, clip.tokenizer, names, functions, device="cpu")
    got = clip.zero_shot_weights(tiny.NAMES, templates)
    assert torch.allclose(got, want.t(), atol=1e-6)
    assert torch.allclose(unit(got), got, atol=1e-6)


def test_the_shipped_model_of_the_package_has_the_default_name(monkeypatch):
    import sys
    import types

    toy = types.ModuleType("fewshot.toy")
    toy.load = lambda: (tiny.config(), tiny.weights())
    monkeypatch.setitem(sys.modules, "fewshot.toy", toy)
    import fewshot

    monkeypatch.setattr(fewshot, "toy", toy, raising=False)
    assert load_clip(device="cpu").name == "toy"


def test_copies_of_a_file_have_one_fingerprint(registered, tmp_path):
    save_file(tiny.weights(), tmp_path / "a.safetensors")
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    made = [load_clip("tiny-model-quickgelu", str(tmp_path / f"{n}.safetensors"), device="cpu") for n in "ab"]
    assert made[0].fingerprint == made[1].fingerprint
