"""TaskRes on one template and on ImageNet's eight, and on an enhanced base, with both optimisers."""

import re

import torch
from golden import train

from fewshot.methods.method import Names
from fewshot.methods.taskres import TaskRes

FOLDERS = ("taskres", "taskres_*")


def check(golden):
    clip, given, templates = golden.clip, golden.meta["hyperparameters"], golden.meta["templates"]
    star = "enhanced.weight" in golden
    noted = next(note for note in golden.meta["notes"] if "torch.optim.Adam(" in note)
    adam = {key: float(value) for key, value in re.findall(r"(lr|eps|weight_decay)=([\d.e-]+)", noted)}
    config = TaskRes.Config(
        alpha=given["RESIDUAL_SCALE"], base="enhanced" if star else "regular", lr=adam["lr"],
        weight_decay=adam["weight_decay"],
    )  # fmt: skip

    def made(classnames=golden.classnames) -> TaskRes:
        # the data set's own template is the last one
        names = Names(given["template_dataset"], tuple(classnames), templates[-1], shots=1)
        model = TaskRes(clip, names, config)
        assert list(model.templates) == templates
        if star:
            model.enhance(golden.given("enhanced.weight"))
        return model

    model = made().eval()
    golden.close("base_text_features", model.base)
    if "base_text_features.underscore" in golden:
        golden.close("base_text_features.underscore", made(golden.meta["underscore_classnames"]).base)
    features = clip.encode_image(golden.images)
    golden.close("image_features", features)
    golden.close("logits.zero_residual", model.logits(features))

    start = golden.given("init.text_feature_residuals")
    model.residual.data.copy_(start)
    golden.close("logits.eval", model.logits(features))
    described = golden.meta["optimizer"]
    sgd = {key: described[key] for key in ("lr", "momentum", "weight_decay", "nesterov")}
    names = {"text_feature_residuals": lambda read: read(model.residual)}
    train(golden, model, clip.encode_image, names, optimizer=torch.optim.SGD(model.parameters(), **sgd))
    golden.close("logits.final", model.logits(features))

    model.residual.data.copy_(start)
    model.train()
    optimizer = model.optimizer()
    own = optimizer.param_groups[0]
    assert type(optimizer) is torch.optim.Adam and own["betas"] == (0.9, 0.999) and own["eps"] == adam["eps"]
    assert TaskRes.Config().weight_decay == adam["weight_decay"]
    for k, (images, labels) in enumerate(golden.batches()):
        optimizer.zero_grad(set_to_none=True)
        golden.close(f"adam.loss.step{k}", model.backward(clip.encode_image(images), labels))
        optimizer.step()
    golden.close("adam.param.text_feature_residuals", model.residual)
    golden.close("adam.logits.final", model.eval().logits(features))
