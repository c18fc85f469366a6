"""Zero-shot classifiers as CLIP-LoRA and Tip-Adapter build them."""

import torch

from fewshot.clip import unit
from fewshot.methods.method import Names
from fewshot.methods.zero_shot import ENSEMBLE, ZeroShot

FOLDERS = ("zero_shot",)


def check(golden):
    clip, templates = golden.clip, golden.meta["templates"]
    names = [n.replace("_", " ") for n in golden.classnames]
    tokens = torch.stack([clip.tokenize([t.replace("{}", n) for n in names]) for t in templates])
    golden.equal("tokens", tokens)
    raw = torch.stack([clip.encode_text(t) for t in tokens])
    golden.close("text_features.raw", raw)
    features = clip.encode_image(golden.images)
    golden.close("image_features.raw", features)
    golden.close("image_features.normalised", unit(features))

    single = ZeroShot(clip, Names("fixture", golden.classnames, templates[0]))
    golden.close("weights.single", single.weights.t())
    golden.close("logits.eval", single.logits(features))
    ensemble = ZeroShot(clip, golden.task(), ZeroShot.Config(templates="ensemble"))
    assert list(ENSEMBLE) == templates[1:8]
    golden.close("weights.ensemble7", ensemble.weights.t())
    golden.close("logits.ensemble7", ensemble.logits(features))
    for key, model in (("top1.single", single), ("top1.ensemble7", ensemble)):
        right = model.logits(features).argmax(dim=1) == golden.labels
        golden.close(key, 100 * right.double().mean())

    wrong = golden.given("weights.ensemble7_mean_of_raw")  # the order of operations that must not be ours
    golden.close("weights.ensemble7_mean_of_raw", unit(raw[1:8].mean(dim=0)).t())
    assert (ensemble.weights.t() - wrong).abs().max() > 1e-3
    golden.close("logit_scale.exp", clip.logit_scale)
    golden.close("logits.model_forward", clip.logit_scale * unit(features) @ single.weights.t())
