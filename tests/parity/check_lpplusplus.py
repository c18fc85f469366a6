"""LP++: the start, both step sizes, and as many epochs as the authors' code ran."""

import torch

from fewshot.clip import unit
from fewshot.methods.lpplusplus import ALPHA_EVERY, MOMENTUM, LPPlusPlus

FOLDERS = ("lpplusplus",)


def check(golden):
    given = golden.meta["hyperparameters"]
    assert MOMENTUM == given["momentum"]
    model = LPPlusPlus(golden.clip, golden.task(), LPPlusPlus.Config(epochs=given["epochs"]))
    features = golden.clip.encode_image(golden.images)
    f, labels = unit(features), golden.given("support.labels").long()
    model.take(features[: len(labels)], labels)
    golden.close("image_features.normalised", f)
    golden.close("text.weights", model.text.t())

    drawn, begin = golden.given("init.classifier.bias"), model.start

    def start():
        sizes = begin()
        assert model.bias.abs().max() <= golden.clip.embed_dim**-0.5 and model.bias.std() > 0
        model.bias = drawn
        return sizes

    model.start = start
    sizes = model.start()
    for name, size in zip(("lr.w", "lr.alpha"), sizes, strict=True):
        golden.close(name, size)
    for name, value in (("weight", model.weight), ("bias", model.bias)):
        golden.close(f"init.classifier.{name}", value)
    golden.close("init.alpha", model.alpha[None])
    golden.close("logits.eval", model.logits(features))
    support = f[: len(labels)]
    _, (weight, bias, alpha) = model.gradient(support, labels)
    golden.close("grad.classifier.weight", weight)
    golden.close("grad.classifier.bias", bias)
    golden.close("grad.alpha", alpha[None])

    losses, test = [], []
    for epoch, loss in enumerate(model.descend(), start=1):
        losses.append(loss)
        if f"loss.step{epoch - 1}" in golden:
            golden.close(f"loss.step{epoch - 1}", loss)
        if f"alpha.after{epoch}" in golden:
            assert epoch % ALPHA_EVERY == 0
            golden.close(f"alpha.after{epoch}", model.alpha[None])
        stage = "" if epoch == 3 else epoch  # the names without a number are those after three epochs
        if f"logits.final{stage}" in golden:
            golden.close(f"logits.final{stage}", model.logits(features))
            for name, value in (("classifier.weight", model.weight), ("classifier.bias", model.bias)):
                golden.close(f"param{stage}.{name}", value)
            golden.close(f"param{stage}.alpha", model.alpha[None])
        test.append(model.logits(features))
    golden.close("loss.all", torch.stack(losses))

    chosen = model.choose(features, golden.labels)
    assert torch.equal(model.logits(features), test[int(chosen["epoch"]) - 1])
    right = model.logits(features).argmax(dim=1) == golden.labels
    golden.close("test_accuracy.selected", 100 * right.double().mean())
