"""CLIP-Adapter: the official form and that of the LP++ repository."""

from golden import train

from fewshot.clip import unit
from fewshot.methods.clip_adapter import CLIPAdapter

FOLDERS = ("clip_adapter", "clip_adapter_*")


def check(golden):
    clip, given, optimizer = golden.clip, golden.meta["hyperparameters"], golden.meta["optimizer"]
    official = "ratio" in given
    config = CLIPAdapter.Config(
        variant="official" if official else "lp++", ratio=given["ratio" if official else "alpha"],
        reduction=given["reduction"], templates=tuple(given["templates"]), lr=optimizer["lr"],
        weight_decay=optimizer["weight_decay"],
    )  # fmt: skip
    model = CLIPAdapter(clip, golden.task(), config)
    model.down.data.copy_(golden.given("init.adapter.fc.0.weight"))
    model.up.data.copy_(golden.given("init.adapter.fc.2.weight"))
    model.eval()

    assert [t.replace("{}", n) for n in golden.classnames for t in model.templates] == golden.meta["prompts"]
    features = clip.encode_image(golden.images)
    if official:
        assert len(model.templates) == 1
        golden.close("image_features", features)
        text = clip.encode_text(golden.meta["prompts"])
        golden.close("text_features", text)
        assert (model.weights - unit(text)).abs().max() < 1e-6
        golden.close("adapter_out.eval", model.adapt(features))
    else:
        golden.close("image_features", unit(features))
        golden.close("text_weights", model.weights.t())
    golden.close("logits.eval", model.logits(features))

    sgd = model.optimizer()
    for name in ("momentum", "weight_decay", "nesterov"):
        assert sgd.param_groups[0][name] == optimizer[name], name
    train(golden, model, clip.encode_image, {
        "adapter.fc.0.weight": lambda read: read(model.down),
        "adapter.fc.2.weight": lambda read: read(model.up),
    }, optimizer=sgd)  # fmt: skip
    if official:
        golden.close("adapter_out.final", model.adapt(features))
    golden.close("logits.final", model.logits(features))
