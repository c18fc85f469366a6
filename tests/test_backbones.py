"""Towers of every kind that open_clip has, in miniature: what can be taken apart is, the rest open_clip runs itself."""

import open_clip
import pytest
import tiny
import torch

from fewshot.clip import Clip, load_clip
from fewshot.errors import FewshotError
from fewshot.evaluation import evaluate
from fewshot.training import fit

TEXT = tiny.TEXT
TIMM = dict(timm_model_name="test_vit", timm_model_pretrained=False, image_size=160)


def siglip():
    """Bidirectional text read at its last token, a projection with a bias; a timm ViT pooled by attention."""
    text = TEXT | dict(context_length=16, no_causal_mask=True, proj_bias=True, pool_type="last")
    vision = TIMM | dict(timm_pool="map", timm_proj="none")
    return open_clip.CustomTextCLIP(64, vision, text, init_logit_bias=-10)


def coca():
    """A class token after the padding, and a captioner behind the text encoder; attention-pooled image."""
    text = TEXT | dict(context_length=76, embed_cls=True, output_tokens=True)
    vision = tiny.VIT | dict(attentional_pool=True, attn_pooler_heads=2, output_tokens=True)
    caption = dict(context_length=76, vocab_size=49408, width=64, heads=2, layers=2, attn_pooler_heads=2)
    return open_clip.CoCa(32, caption, text, vision)


def clipa():
    """Bidirectional text read at its last position; a ViT without ln_pre that averages its patches."""
    text = TEXT | dict(context_length=32, pool_type="last", no_causal_mask=True)
    return open_clip.CustomTextCLIP(
        32, tiny.VIT | dict(no_ln_pre=True, pool_type="avg", final_ln_after_pool=True), text
    )


def mobileclip():
    """A timm convolutional network, and text without a mask read at its EOT."""
    vision = dict(timm_model_name="test_convnext", timm_model_pretrained=False, timm_pool="avg", image_size=32)
    return open_clip.CustomTextCLIP(32, vision, TEXT | dict(no_causal_mask=True))


def eva():
    """A timm ViT beside a causal text encoder: prompts work, prompts inside the image encoder do not."""
    return open_clip.CustomTextCLIP(32, TIMM | dict(timm_pool="token", timm_proj=None), TEXT)


KINDS = {kind.__name__: kind for kind in (siglip, coca, clipa, mobileclip, eva)}
CAUSAL = {"eva"}


@pytest.fixture(scope="module", params=KINDS)
def clip(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setenv("FEWSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        torch.manual_seed(0)
        yield Clip(KINDS[request.param](), request.param, device="cpu")


def test_features_are_open_clips_own(clip):
    tokens = clip.tokenize(["a photo of a forest.", "a photo of a sea or lake."])
    x = torch.randn(2, 3, clip.image_size, clip.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        images, texts = clip.model.encode_image(x), clip.model.encode_text(tokens)
    assert torch.allclose(clip.encode_image(x), images, atol=1e-5)
    assert torch.allclose(clip.encode_text(tokens), texts, atol=1e-5)
    assert images.shape == texts.shape == (2, clip.embed_dim)


def test_only_what_is_causal_and_read_at_its_end_is_cut(clip):
    assert (clip.text is not None) == (clip.name in CAUSAL)
    assert clip.vision is None


@pytest.mark.parametrize("method", ["zero_shot", "linear_probe", "tip_adapter_f", "lpplusplus", "taskres"])
def test_methods_on_features_work_on_any_tower(clip, method):
    task = tiny.dataset(clip.image_size, f"tiny-{clip.name}").task(4)
    model = fit(method, clip, task, progress=False, **tiny.quick(method, "vit"))
    assert evaluate(model, task.test).n == 40


def test_learned_prompts_train_or_are_refused_in_one_sentence(clip):
    task = tiny.dataset(clip.image_size, f"tiny-{clip.name}").task(4)
    if clip.name in CAUSAL:
        assert evaluate(fit("coop", clip, task, progress=False, **tiny.quick("coop", "vit")), task.test).n == 40
    else:
        with pytest.raises(FewshotError, match="CoOp needs a causal text encoder read at its end-of-text token"):
            fit("coop", clip, task, progress=False, **tiny.quick("coop", "vit"))


@pytest.mark.parametrize("method", ["maple", "plotpp", "clip_lora"])
def test_methods_inside_the_image_encoder_are_refused_in_one_sentence(clip, method):
    with pytest.raises(FewshotError, match="needs a causal text encoder|works on the blocks of a vision transformer"):
        fit(method, clip, tiny.dataset(clip.image_size).task(4), progress=False, **tiny.quick(method, "vit"))


def test_a_text_tower_of_another_package_says_what_is_missing(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(FewshotError, match="roberta-ViT-B-32 cannot be built .*transformers"):
        load_clip("roberta-ViT-B-32", str(tmp_path / "w.safetensors"))


def test_a_tokenizer_that_cannot_be_fetched_says_so(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    def offline(name):
        raise OSError("offline")

    made = siglip()
    monkeypatch.setattr("fewshot.clip._build", lambda config, name: made)
    monkeypatch.setattr(open_clip, "get_tokenizer", offline)
    save_file(made.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(FewshotError, match="the tokenizer of ViT-B-16-SigLIP could not be loaded"):
        load_clip("ViT-B-16-SigLIP", str(tmp_path / "w.safetensors"))
