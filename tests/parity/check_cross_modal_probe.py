"""The probe of cross-modal adaptation: three steps of AdamW on pictures, with and without prompts in the batch."""

import torch
import torch.nn.functional as F

from fewshot.clip import unit
from fewshot.methods.cross_modal_probe import CrossModalProbe, Stack, gradient, schedule
from fewshot.methods.method import make_config

FOLDERS = ("linear_probe_crossmodal", "linear_probe_unimodal")


def check(golden):
    given = golden.meta["hyperparameters"]
    modality, init = given["modality"].removesuffix("_modal"), given["classifier_init"]
    config = dict(modality=modality, init=init, templates=golden.meta["templates"])
    model = CrossModalProbe(golden.clip, golden.task(), make_config(CrossModalProbe, config))
    features, templates = golden.clip.encode_image(golden.images), golden.meta["templates"]
    names = [n.replace("_", " ") for n in golden.classnames]
    texts = golden.clip.encode_text([t.replace("{}", n) for n in names for t in templates])
    golden.close("image_features.raw", features)
    golden.close("text_features.raw", texts)
    assert torch.allclose(model.texts, unit(texts), atol=1e-6)
    golden.equal("text.labels", model.text_labels)
    golden.close("zero_shot.weight", model.zero_shot)

    start = golden.given("init.head.weight")  # drawn at random, or the zero-shot classifier
    if init == "zeroshot":
        start = model.start()
        golden.close("init.head.weight", start)
    model.weight = start
    golden.close("logits.eval", model.logits(features))

    trace = [schedule(given["lr"], i, len(golden.tensors["lr.trace"])) for i in range(len(golden.tensors["lr.trace"]))]
    golden.close("lr.trace", torch.tensor(trace, dtype=torch.float64))
    golden.close("lr.steps", torch.tensor(trace[: given["iterations"]], dtype=torch.float64))

    # a second layer in the stack, with other settings, must change nothing
    stack = Stack(start, [(1e-3, 0.1), (given["lr"], given["weight_decay"])], len(trace))
    cross = modality == "cross"
    rows = golden.given("text_batch.indices").long() if cross else [[]] * given["iterations"]
    for k, (images, labels) in enumerate(golden.batches(given["iterations"])):
        x = torch.cat([golden.clip.encode_image(images), texts[rows[k]]])
        y = torch.cat([labels, model.text_labels[rows[k]]]).long()
        model.weight = stack.weight[1]
        golden.close(f"loss.step{k}", model.loss(x, y))
        slope = gradient(stack.weight, unit(x), F.one_hot(y, len(names)).float())
        if k == 0:
            golden.close("grad.head.weight", slope[1])
        stack.step(slope)
    model.weight = stack.weight[1]
    golden.close("param.head.weight", model.weight)
    golden.close("logits.final", model.logits(features))
    mixed = CrossModalProbe(golden.clip, golden.task(), make_config(CrossModalProbe, config | {"wise_ft": 0.5}))
    mixed.weight = model.weight
    golden.close("logits.final_wiseft0.5", mixed.logits(features))
