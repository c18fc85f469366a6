"""What holds for every method on every kind of backbone."""

import numpy as np
import pytest
import tiny
import torch

from fewshot.errors import FewshotError
from fewshot.evaluation import evaluate
from fewshot.methods import METHODS, get_method
from fewshot.methods.method import Method, load_method
from fewshot.training import fit

KINDS = ("vit", "resnet")
EACH = [(method, kind) for method in METHODS for kind in KINDS if (method, kind) not in tiny.REFUSED]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def fitted(own_cache):
    """Each method fitted once on each backbone, with the hash of the CLIP before."""
    done = {}

    def get(method: str, kind: str):
        if (method, kind) not in done:
            clip = tiny.clip(kind)
            before = clip.state_hash()
            done[method, kind] = (
                fit(method, clip, tiny.task(kind), progress=False, **tiny.quick(method, kind)),
                before,
            )
        return done[method, kind]

    return get


def some_input(model, n: int = 6) -> torch.Tensor:
    images = tiny.task("resnet" if model.clip.visual_kind == "resnet" else "vit").test.subset(range(n))
    from fewshot.data.views import View, load_batch

    x = load_batch(images, range(n), View(), model.clip)
    return model.clip.encode_image(x) if model.needs == "features" else x


@pytest.mark.parametrize(("method", "kind"), EACH)
def test_the_clip_is_bit_identical_and_frozen_after_fitting(fitted, method, kind):
    model, before = fitted(method, kind)
    clip = tiny.clip(kind)
    assert clip.state_hash() == before
    assert not clip.model.training
    assert not any(p.requires_grad or p.grad is not None for p in clip.model.parameters())


@pytest.mark.parametrize(("method", "kind"), EACH)
def test_only_the_methods_own_tensors_train_in_fp32(fitted, method, kind):
    model, _ = fitted(method, kind)
    theirs = {p.data_ptr() for p in tiny.clip(kind).model.parameters()}
    ours = list(model.parameters())
    assert not theirs & {p.data_ptr() for p in ours}
    assert bool(ours) == model.trained
    for p in ours:
        assert p.dtype == torch.float32 and p.requires_grad
    for value in model.state_dict().values():
        assert value.dtype in (torch.float32, torch.int64)


@pytest.mark.parametrize(("method", "kind"), [(m, k) for m, k in EACH if get_method(m).trained])
def test_training_moves_every_parameter_and_the_loss_is_recorded(fitted, method, kind):
    model, _ = fitted(method, kind)
    clip, task = tiny.clip(kind), tiny.task(kind)
    fresh = type(model)(clip, task, model.config)
    fresh.prepare(task.train)
    fresh, moved = dict(fresh.named_parameters()), dict(model.named_parameters())
    assert fresh.keys() == moved.keys()
    for name in fresh:
        assert not torch.equal(fresh[name], moved[name]), name
    assert model.history and all(np.isfinite(model.history))


@pytest.mark.parametrize(("method", "kind"), EACH)
def test_logits_have_one_column_per_class_and_are_the_same_twice(fitted, method, kind):
    model, _ = fitted(method, kind)
    x = some_input(model)
    with torch.no_grad():
        first, again, one = model.logits(x), model.logits(x), model.logits(x[2:3])
    assert first.shape == (6, 4) and torch.isfinite(first).all()
    assert torch.equal(first, again)
    assert torch.allclose(one[0], first[2], rtol=1e-4, atol=1e-4)  # a picture's score does not depend on its batch


@pytest.mark.parametrize(("method", "kind"), EACH)
def test_evaluation_counts_what_predict_says(fitted, method, kind):
    model, _ = fitted(method, kind)
    test = tiny.task(kind).test
    result = evaluate(model, test, batch_size=16)
    named = model.predict([test.pil(i) for i in range(len(test))])
    assert named == [tiny.NAMES[i] for i in result.predictions]
    assert result.n == 40 and result.accuracy == pytest.approx(100 * np.mean(result.predictions == test.labels))
    proba = model.predict_proba(test)
    assert proba.shape == (40, 4) and torch.allclose(proba.sum(1), torch.ones(40))


@pytest.mark.parametrize(("method", "kind"), EACH)
def test_save_and_load_give_the_same_logits_from_kilobytes(fitted, method, kind, tmp_path):
    model, _ = fitted(method, kind)
    path = model.save(tmp_path / "model.safetensors")
    trained = tiny.clip(kind).model.visual.parameters() if model.saves_encoder else ()
    assert path.stat().st_size < 100_000 + sum(4 * p.numel() for p in trained)
    loaded = load_method(path, tiny.clip(kind))
    x = some_input(model)
    with torch.no_grad():
        assert torch.equal(loaded.logits(x), model.logits(x))
    assert (loaded.classnames, loaded.chosen, loaded.config) == (model.classnames, model.chosen, model.config)
    assert not loaded.training


@pytest.mark.parametrize(("method", "kind"), EACH)
def test_retarget_gives_other_classes_or_refuses_in_one_sentence(fitted, method, kind, tmp_path):
    model, _ = fitted(method, kind)
    model = load_method(model.save(tmp_path / "m.safetensors"), tiny.clip(kind))
    x, new = some_input(model), ("red panda", "steam_engine")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        model.retarget(new)
    except FewshotError as error:
        assert model.title in str(error) and str(error).count("\n") == 0
        assert model.classnames == tiny.NAMES
    else:
        with torch.no_grad():
            assert model.logits(x).shape == (6, 2)
        assert model.classnames == new
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_fitting_twice_gives_the_same_numbers_and_leaves_the_global_generator_alone(fitted, method):
    model, _ = fitted(method, "vit")
    torch.manual_seed(123)
    state = torch.get_rng_state()
    again = fit(method, tiny.clip("vit"), tiny.task("vit"), progress=False, **tiny.quick(method, "vit"))
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert again.chosen == model.chosen


@pytest.mark.parametrize("method", [m for m in METHODS if get_method(m).trained])
def test_another_seed_gives_another_model(fitted, method):
    model, _ = fitted(method, "vit")
    other = fit(method, tiny.clip("vit"), tiny.task("vit"), seed=2, progress=False, **tiny.quick(method, "vit"))
    assert any(not torch.equal(other.state_dict()[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_fit_cannot_reach_the_test_pictures(method, monkeypatch):
    task, seen = tiny.task("vit"), []
    cls = get_method(method)

    def spy(self, clip, given, *args, **kwargs):
        with pytest.raises(FewshotError, match="sealed"):
            given.test  # noqa: B018
        seen.append(True)
        original(self, clip, given, *args, **kwargs)

    original = cls.__init__
    monkeypatch.setattr(cls, "__init__", spy)
    pictures = type(task.test).pil

    def guarded(self, i):
        assert not self.ids[i].startswith("3/"), "a test picture was opened"
        return pictures(self, i)

    monkeypatch.setattr(type(task.test), "pil", guarded)
    fit(method, tiny.clip("vit"), task, progress=False, **tiny.quick(method, "vit"))
    assert seen


@pytest.mark.parametrize("method", METHODS)
def test_every_method_names_itself(method):
    cls = get_method(method)
    assert issubclass(cls, Method) and cls.name == method
    assert cls.title and cls.paper and cls.__module__ == f"fewshot.methods.{method}"
    assert __import__(cls.__module__, fromlist=["x"]).__doc__


@pytest.mark.parametrize(("method", "kind"), sorted(tiny.REFUSED))
def test_a_method_without_its_encoder_is_refused_at_construction_in_one_sentence(method, kind):
    cls, clip = get_method(method), tiny.clip(kind)
    before = clip.state_hash()
    with pytest.raises(FewshotError, match="works on the blocks of a vision transformer") as caught:
        fit(method, clip, tiny.task(kind), progress=False, **tiny.quick(method, kind))
    assert cls.title in str(caught.value) and "\n" not in str(caught.value)
    assert clip.state_hash() == before


@pytest.mark.parametrize("encoder", ["vision", "both"])
def test_lora_in_the_blocks_of_a_resnet_is_refused_at_construction(encoder):
    with pytest.raises(FewshotError, match="CLIP-LoRA on the vision side works on the blocks of a vision transformer"):
        get_method("clip_lora")(
            tiny.clip("resnet"), tiny.task("resnet"), get_method("clip_lora").Config(encoder=encoder)
        )


def test_a_method_learned_on_another_clip_is_refused(fitted, tmp_path):
    path = fitted("coop", "vit")[0].save(tmp_path / "coop.safetensors")
    with pytest.raises(FewshotError, match="was learned on tiny-vit"):
        load_method(path, tiny.clip("resnet"))


def test_files_that_are_no_saved_method_are_refused(tmp_path):
    with pytest.raises(FewshotError, match="does not exist"):
        load_method(tmp_path / "none.safetensors", tiny.clip())
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(FewshotError, match="damaged"):
        load_method(tmp_path / "torn.safetensors", tiny.clip())
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(FewshotError, match="not a method that fewshot saved"):
        load_method(tmp_path / "other.safetensors", tiny.clip())
