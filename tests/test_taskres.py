"""TaskRes: a base that is nowhere normalised, names with underscores, and the enhanced base of TaskRes*."""

import pytest
import tiny
import torch
from safetensors.torch import save_file

from fewshot.clip import Clip, unit
from fewshot.errors import FewshotError
from fewshot.methods.method import Names, coop_lr, load_method, make_config
from fewshot.methods.taskres import TaskRes
from fewshot.methods.zero_shot import ENSEMBLE
from fewshot.training import fit

QUICK = dict(epochs=3, lr=0.01, progress=False)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))


def made(dataset="x", classnames=tiny.NAMES, template="a photo of a {}.", shots=16, clip=None, **config):
    names = Names(dataset, tuple(classnames), template, shots)
    return TaskRes(clip or tiny.clip(), names, TaskRes.Config(**config)).eval()


def features(n=5):
    return torch.randn(n, 32, generator=torch.Generator().manual_seed(0))


def matrix(seed=3):
    return torch.randn(32, 64, generator=torch.Generator().manual_seed(seed))


# The base


def test_the_base_is_the_mean_of_features_that_are_not_normalised():
    model = made("toy/imagenet")
    texts = [[t.replace("{}", n) for t in (*ENSEMBLE, "a photo of a {}.")] for n in tiny.NAMES]
    want = torch.stack([tiny.clip().encode_text(t).mean(dim=0) for t in texts])
    assert torch.allclose(model.base, want, atol=1e-5)
    assert float((model.base.norm(dim=1) - 1).abs().min()) > 0.1
    assert not torch.allclose(unit(model.base), tiny.clip().zero_shot_weights(tiny.NAMES, model.templates), atol=1e-3)


def test_underscores_of_class_names_are_kept():
    prompts = ["a photo of a Grizzly_bear.", "a photo of a Grizzly bear."]
    kept, replaced = tiny.clip().encode_text(prompts)
    base = made(classnames=("Grizzly_bear", "sea")).base[0]
    assert torch.allclose(base, kept, atol=1e-5) and not torch.allclose(base, replaced, atol=1e-3)


def test_imagenet_has_seven_more_templates_each_time_it_is_built():
    for _ in range(3):
        assert made("imagenet").templates == (*ENSEMBLE, "a photo of a {}.") and len(ENSEMBLE) == 7
    assert made("toy/oxford_pets", template="a {}, a type of pet.").templates == ("a {}, a type of pet.",)


def test_training_starts_at_the_zero_shot_logits_of_the_base():
    model = made()
    want = model.clip.logit_scale * unit(features()) @ unit(model.base).t()
    assert float(model.residual.abs().max()) == 0 and torch.allclose(model.logits(features()), want, atol=1e-5)


def test_the_residual_is_added_before_the_base_is_normalised():
    model = made(alpha=0.7)
    model.residual.data = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    t = model.base + 0.7 * model.residual
    want = model.clip.logit_scale * unit(features()) @ unit(t).t()
    assert torch.allclose(model.logits(features()), want, atol=1e-5)
    after = model.clip.logit_scale * unit(features()) @ unit(unit(model.base) + 0.7 * model.residual).t()
    assert not torch.allclose(want, after, rtol=0.1)


# The authors' settings


def test_settings_follow_the_data_set_and_the_shots():
    assert [made(d).alpha for d in ("x", "toy/oxford_flowers", "OxfordFlowers", "oxford_pets")] == [0.5, 1.0, 1.0, 0.5]
    assert made("oxford_flowers", alpha=0.2).alpha == 0.2
    assert [made(shots=k).epochs() for k in (1, 2, 4, 8, 16, None)] == [100, 100, 100, 200, 200, 200]
    rates = [made(d).optimizer().param_groups[0]["lr"] for d in ("x", "toy/imagenet", "ImageNet")]
    assert rates == [2e-3, 2e-4, 2e-4]
    assert made("imagenet", lr=0.1).optimizer().param_groups[0]["lr"] == 0.1
    assert made().config.batch_size == 256 and made().drop_last


def test_the_optimiser_is_adam_with_decay_in_the_gradient():
    model = made()
    optimizer = model.optimizer()
    assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["weight_decay"] == 5e-4
    model.residual.data.fill_(1.0)
    model.residual.grad = torch.zeros(4, 32)
    optimizer.step()  # Adam makes a full step of the decay alone; AdamW would take 1e-6
    assert torch.allclose(model.residual, torch.full((4, 32), 1 - 2e-3), atol=1e-4)


def test_the_rate_warms_up_for_an_epoch_and_falls_per_epoch():
    model = made("imagenet")
    assert [model.lr(step, 12, 3) for step in (0, 2, 3, 11)] == [coop_lr(2e-4, e, 4) for e in (0, 0, 1, 3)]


def test_a_learning_rate_may_be_left_to_the_method_and_must_be_a_number_otherwise():
    assert make_config(TaskRes, {"lr": None}).lr is None
    with pytest.raises(FewshotError, match="lr of taskres must be a number from 0 on"):
        make_config(TaskRes, {"lr": "fast"})
    with pytest.raises(FewshotError, match="lr of clip_adapter must be a number from 0 on, not None"):
        from fewshot.methods.clip_adapter import CLIPAdapter

        make_config(CLIPAdapter, {"lr": None})


def test_a_loss_that_is_not_finite_names_the_rate():
    with pytest.raises(FewshotError, match="the loss of TaskRes is not finite .* \\(now 0.002\\)"):
        fit("taskres", tiny.clip(), tiny.task(), epochs=2, alpha=float("nan"), progress=False)


def test_other_classes_are_refused():
    with pytest.raises(FewshotError, match="TaskRes cannot change its classes, it learns one residual per class"):
        made().retarget(("a", "b"))


# TaskRes*


def test_an_enhanced_base_is_the_text_feature_under_another_projection():
    model, weight = made("imagenet", base="enhanced"), matrix()
    assert torch.allclose(model.base, made("imagenet").base, atol=1e-4)  # so far it is CLIP's own
    model.enhance(weight)
    state = tiny.weights()
    state["text_projection"] = weight.t().contiguous()
    other = Clip.from_state_dict(tiny.config(), state, "other projection", device="cpu")
    assert torch.allclose(model.base, made("imagenet", clip=other).base, atol=1e-4)
    assert float(model.residual.abs().max()) == 0


def test_the_projection_of_a_file_is_used_and_saved_with_the_model(tmp_path):
    file, task = tmp_path / "w.safetensors", tiny.task()
    save_file({"weight": matrix().half()}, file)
    model = fit("taskres", tiny.clip(), task, base="enhanced", enhanced=str(file), **QUICK)
    want = made(base="enhanced")
    want.enhance(matrix().half().float())
    assert torch.equal(model.base, want.base) and model.title == "TaskRes*"
    path = model.save(tmp_path / "model.safetensors")
    file.unlink()  # a saved model does not need it any more
    with torch.no_grad():
        assert torch.equal(load_method(path, tiny.clip()).logits(features()), model.logits(features()))


def test_a_regular_base_is_computed_again_and_not_saved():
    assert list(made().state_dict()) == ["residual"]
    assert sorted(made(base="enhanced").state_dict()) == ["base", "residual"]


def test_a_file_that_holds_no_such_projection_is_refused(tmp_path):
    def fitted(name):
        fit("taskres", tiny.clip(), tiny.task(), base="enhanced", enhanced=str(tmp_path / name), **QUICK)

    with pytest.raises(FewshotError, match="none.safetensors of TaskRes\\* does not exist; check enhanced="):
        fitted("none.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(FewshotError, match="is damaged or no .safetensors file"):
        fitted("torn.safetensors")
    save_file({"weight": matrix().t().contiguous()}, tmp_path / "turned.safetensors")
    with pytest.raises(FewshotError, match=r"needs a tensor 'weight' \[32, 64\] in .*, but it is \[64, 32\] there"):
        fitted("turned.safetensors")
    save_file({"proj": matrix()}, tmp_path / "other.safetensors")
    with pytest.raises(FewshotError, match="but no such tensor there"):
        fitted("other.safetensors")


def test_our_own_projection_fits_the_support_and_is_the_same_twice():
    task, clip = tiny.task(), tiny.clip()
    before = clip.state_hash()

    def loss(**config):
        from fewshot.data.features import image_features

        model = TaskRes(clip, task, TaskRes.Config(base="enhanced", **config))
        model.prepare(task.train)
        x = image_features(clip, task.train, progress=False)
        return float(model.eval().loss(x, torch.as_tensor(task.train.labels))), model.base

    (start, clips), (end, ours), (again, same) = loss(projection_epochs=0), loss(), loss()
    assert end < 0.7 * start and end == again and torch.equal(ours, same)
    assert torch.allclose(clips, made(base="enhanced").base) and clip.state_hash() == before
    assert not torch.equal(loss(projection_lr=0.1)[1], ours)


def test_learned_numbers_are_the_residual_and_the_projection_behind_it():
    assert made().learned() == 4 * 32 and made(base="enhanced").learned() == 4 * 32 + 32 * 64


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"base": "enhance"}, "unknown base of taskres 'enhance'; did you mean 'enhanced'"),
        ({"enhanced": "w.safetensors"}, "reads the file enhanced= only for base='enhanced'"),
        ({"base": "enhanced", "projection_epochs": -1}, "must be 0 or more"),
    ],
)
def test_settings_without_a_meaning_are_refused(config, said):
    with pytest.raises(FewshotError, match=said):
        made(**config)


def test_an_enhanced_base_needs_a_text_encoder_with_a_projection():
    import open_clip

    clip = Clip(open_clip.CustomTextCLIP(**tiny.config(no_causal_mask=True)), "bidirectional", device="cpu")
    with pytest.raises(FewshotError, match="TaskRes\\* needs a causal text encoder"):
        made(clip=clip, base="enhanced")
    assert made(clip=clip).base.shape == (4, 32)
