"""The text adapter: the losses, LAVIS's Q-Former on a sequence and on one vector, both stages for three steps."""

import torch

from fewshot.clip import unit
from fewshot.converters import conversion_loss
from fewshot.heads import Heads, Pool, head_loss
from fewshot.methods.method import make_config
from fewshot.methods.text_adapter import TextAdapter
from fewshot.pair_losses import pair_loss, roles, terms
from fewshot.pairs import Bank
from fewshot.qformer import QFormer

FOLDERS = ("text_adapter",)
VARIANTS = {
    "printed": {}, "swapped": {}, "swapped_margin": {"loss": "swapped", "margin": 0.2}, "swapped_balanced": {},
    "swapped_masked": {"loss": "swapped", "same_class": "ignore"}, "positive_only": {},
}  # fmt: skip


def check(golden):
    losses(golden)
    lines = [[t.replace("{}", n) for t in golden.meta["templates"]] for n in golden.classnames]
    bank, sequences = Bank(golden.clip, lines), Bank(golden.clip, lines, "tokens")
    images = unit(golden.clip.encode_image(golden.images))
    golden.close("clip.image_features", images)
    golden.close("clip.text_features", bank.features)
    golden.equal("clip.labels", golden.labels)
    golden.equal("clip.tokens", golden.clip.tokenize([line for some in lines for line in some]))
    golden.equal("clip.text_mask", sequences.mask)
    golden.close("clip.text_sequence", sequences.sequence)
    rows = torch.arange(len(bank.features))

    queries = qformer(golden, golden.clip.text_width, "qformer_tokens.init.")
    golden.close("qformer_tokens.hidden", queries.states(*sequences.keys(rows)))
    golden.close("qformer_tokens.output", queries(*sequences.keys(rows)).mean(dim=1))
    stage1(golden, bank, rows, images)
    stage2(golden, images)


def losses(golden):
    i, made, labels = (golden.given(f"loss.{name}").double() for name in ("I", "Iprime", "labels"))
    cos = unit(i) @ unit(made).t()
    golden.close("loss.cos", cos)
    for name, options in VARIANTS.items():
        options = {"loss": name, **options}
        a, b = i.clone().requires_grad_(), made.clone().requires_grad_()
        value = pair_loss(a, b, labels, **options)
        value.backward()
        golden.close(f"loss.{name}", value)
        golden.close(f"loss.{name}.grad_I", a.grad)
        golden.close(f"loss.{name}.grad_Iprime", b.grad)
        kept = roles(cos, labels, options.get("same_class", "negative"))
        pair, weight = terms(cos, *kept, options["loss"], options.get("margin", 0.0))
        golden.close(f"loss.{name}.pair", pair)
        golden.close(f"loss.{name}.weight", weight)


def qformer(golden, source, prefix):
    """Ours with the weights of the fixture, under the names of the fixture."""
    given = golden.meta["qformer"]
    sizes = {name: given[name] for name in ("hidden", "layers", "heads", "ffn", "queries", "cross_every")}
    made = QFormer(source, golden.clip.embed_dim, dropout=0.0, **sizes)
    made.load_state_dict({key.removeprefix(prefix): golden.given(key) for key in golden.keys(prefix)})
    return made


def stage1(golden, bank, rows, images):
    model = qformer(golden, golden.clip.embed_dim, "stage1.init.")
    golden.close("stage1.hidden.eval", model.states(*bank.keys(rows)))
    golden.close("stage1.converted.eval", model(*bank.keys(rows)).mean(dim=1))
    given = golden.meta["optimizer"]["stage1"]
    sgd = torch.optim.SGD(
        model.parameters(), lr=given["lr"], momentum=given["momentum"], weight_decay=given["weight_decay"]
    )
    captions = golden.given("stage1.caption_index").long()
    for step in range(3):
        part = slice(step * golden.batch, (step + 1) * golden.batch)
        out = model(*bank.keys(captions[part]))
        loss = conversion_loss(out, images[part], golden.labels[part], "mean", loss="swapped", same_class="negative")
        golden.close(f"stage1.loss.step{step}", loss)
        sgd.zero_grad()
        loss.backward()
        if step == 0:
            slopes = {name: p.grad for name, p in model.named_parameters()}
            for name, p in model.named_parameters():
                if name.endswith("self.k.bias"):  # zero but for rounding: it shifts all scores of a softmax alike
                    peak = float(slopes[name.replace("bias", "weight")].abs().max())
                    assert max(float(g.abs().max()) for g in (p.grad, golden.given(f"stage1.grad.{name}"))) < 1e-5 * peak
                    continue
                golden.close(f"stage1.grad.{name}", p.grad)
                if ".cross.q." in name or ".cross.k." in name:
                    assert not p.grad.any(), f"{name} reads one key and must have no gradient"
        sgd.step()
    for name, p in model.named_parameters():
        golden.close(f"stage1.param.{name}", p)
    golden.close("stage1.converted.final", unit(model(*bank.keys(rows)).mean(dim=1)))


def stage2(golden, images):
    converted, scale = golden.tensors["stage1.converted.final"], golden.meta["logit_scale"]
    per_class = len(golden.meta["templates"])
    labels = torch.arange(len(golden.classnames)).repeat_interleave(per_class)
    weight, bias = golden.given("stage2.init.weight"), golden.given("stage2.init.bias")
    # a second head in the stack, on other rows, must change nothing
    heads = Heads(torch.stack([weight, weight]), torch.stack([bias, bias]))
    model = TextAdapter(golden.clip, golden.task(), make_config(TextAdapter, {"texts_from": "templates"}))

    def logits():
        model.weight, model.bias = heads.weight[1], heads.bias[1]
        return model.logits(golden.clip.encode_image(golden.images))

    assert abs(scale - 100) < 1e-4
    golden.close("stage2.logits.eval", logits())
    given = golden.meta["optimizer"]["stage2"]
    sgd = torch.optim.SGD(
        heads.parameters(), lr=given["lr"], momentum=given["momentum"], weight_decay=given["weight_decay"]
    )
    for step in range(3):
        part = slice(step * golden.batch, (step + 1) * golden.batch)
        texts = golden.given(f"stage2.text_index.step{step}").long()
        pool = Pool.of((images[part], golden.labels[part].long()), (converted[texts], labels[texts]))
        x = torch.stack([pool.x.flip(1), pool.x])
        both = pool.labels.expand(2, -1), pool.weights.expand(2, -1)
        loss = head_loss(heads(x), *both)
        golden.close(f"stage2.loss.step{step}", loss[1])
        sgd.zero_grad()
        loss.sum().backward()
        if step == 0:
            golden.close("stage2.grad.weight", heads.weight.grad[1])
            golden.close("stage2.grad.bias", heads.bias.grad[1])
        sgd.step()
    golden.close("stage2.param.weight", heads.weight[1])
    golden.close("stage2.param.bias", heads.bias[1])
    golden.close("stage2.logits.final", logits())
