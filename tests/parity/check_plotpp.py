"""PLOT++: both stages, the Sinkhorn loop by itself, and the head of PLOT v1 on given image tokens."""

import pytest
import torch
import torch.nn.functional as F
from golden import train

from fewshot.methods import plotpp
from fewshot.methods.plotpp import PLOTpp
from fewshot.prompts import Prompts

FOLDERS = ("plotpp_*", "plot_v1_head")


def check(golden):
    solved = []  # (kernel, plan, iterations) of every Sinkhorn call
    sinkhorn = plotpp.sinkhorn

    def recorded(kernel, *settings):
        plan, count = sinkhorn(kernel, *settings)
        solved.append((kernel.flatten(0, -3), plan.flatten(0, -3), count))
        return plan, count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotpp, "sinkhorn", recorded)
        check_v1(golden, solved) if golden.folder == "plot_v1_head" else check_stage(golden, solved)


def iterations(golden) -> dict[str, int]:
    """The authors' number of iterations by the name of the call."""
    return {call["call"]: call["iterations"] for call in golden.meta["sinkhorn_calls"]}


def compare_plan(golden, when, solved, kernel=True):
    k, plan, count = solved[-1]
    golden.close(f"sinkhorn.T.{when}", plan)
    if kernel:
        golden.close(f"sinkhorn.K.{when}", k)
    assert count == iterations(golden)[f"logits.{when}"]


def check_stage(golden, solved):
    clip, given, settings = golden.clip, golden.meta["hyperparameters"], golden.meta["optimizer"]
    loop = given["sinkhorn"]
    config = PLOTpp.Config(
        n_prompts_text=given["N"], n_prompts_vision=given["M"], n_ctx_vision=given["N_CTX_V"],
        templates=tuple(given["templates"]), eps=loop["eps"], max_iter=loop["max_iter"], thresh=loop["thresh"],
        lr=settings["lr"], weight_decay=settings["weight_decay"],
    )  # fmt: skip
    first = given["MODEL_UPD"] == "vision"
    assert first == given["TRADE_OFF"]
    model = PLOTpp(clip, golden.task(), config)
    assert model.n == given["n_ctx_text"]
    golden.close("ctx.official_init", model.ctx)
    published = PLOTpp(clip, golden.task(given["template_dataset"]), PLOTpp.Config(n_prompts_text=given["N"]))
    assert torch.equal(published.ctx, model.ctx) and torch.equal(published.tokens, model.tokens)
    tokens = golden.tensors["tokens"]
    golden.equal("tokens", F.pad(model.tokens, (0, tokens.shape[1] - model.tokens.shape[1])))

    model.ctx.data.copy_(golden.given("frozen.ctx" if first else "init.ctx"))
    model.ctx_vision.data.copy_(golden.given("init.ctx_vision"))
    model.begin(*(s for s in model.stages() if (s == "vision") == first))
    trained = ["ctx_vision"] if first else ["ctx", "ctx_vision"]
    assert [n for n, p in model.named_parameters() if p.requires_grad] == trained
    model.eval()
    look(golden, model, "eval", solved)
    for k, (images, _) in enumerate(golden.batches()):
        with torch.no_grad():
            golden.close(f"logits.eval.batch{k}", model.logits(images))
        assert solved[-1][2] == iterations(golden)[f"logits.eval.batch{k}"]

    names = {"ctx_vision": lambda read: read(model.ctx_vision)}
    if not first:
        names["ctx"] = lambda read: read(model.ctx)
    sgd = model.optimizer()
    for name in ("momentum", "weight_decay", "nesterov"):
        assert sgd.param_groups[0][name] == settings[name], name
    assert PLOTpp.Config().weight_decay == settings["weight_decay"]
    frozen = model.ctx.detach().clone()
    train(golden, model, lambda x: x, names, optimizer=sgd)
    for k, (_, _, count) in enumerate(solved[-5::2]):  # each step looks at the logits first
        assert count == iterations(golden)[f"train step {k}"]
    assert torch.equal(model.ctx, frozen) == first
    look(golden, model, "final", solved)

    for key in golden.keys("unit.sinkhorn.T."):
        sim = golden.given("unit.sinkhorn.sim")
        part = sim if key.endswith("all") else sim[-golden.tensors[key].shape[0] :]
        plan, count = plotpp.sinkhorn(torch.exp(-(1 - part) / loop["eps"]), loop["max_iter"], loop["thresh"])
        golden.close(key, plan)
        assert count == iterations(golden)[key]


def look(golden, model, when, solved):
    """Features, plan and logits of one call on all pictures."""
    with torch.no_grad():
        golden.close(f"image_features.{when}", model.image_features(golden.images))
        golden.close(f"text_features.{when}", model.text_features().flatten(0, 1))
        golden.close(f"logits.{when}", model.logits(golden.images))
    compare_plan(golden, when, solved)


def check_v1(golden, solved):
    given, settings = golden.meta["hyperparameters"], golden.meta["optimizer"]
    loop = {k: given["sinkhorn"][k] for k in ("eps", "max_iter", "thresh")}
    image = golden.given("image_tokens")
    assert image.shape[0] == 1 + given["M_local"]
    prompts = Prompts(golden.clip, golden.classnames, given["n_ctx_text"])
    tokens = F.pad(prompts.tokens, (0, golden.tensors["tokens"].shape[1] - prompts.tokens.shape[1]))
    golden.equal("tokens", tokens.repeat(given["N"], 1))
    ctx = golden.given("init.ctx").clone().requires_grad_()

    def logits(tokens):
        scale = golden.clip.logit_scale
        return plotpp.plot_logits(tokens, prompts.features(ctx), scale, add_global=given["add_global_logits"], **loop)

    def look(when):
        with torch.no_grad():
            golden.close(f"text_features.{when}", prompts.features(ctx).flatten(0, 1))
            golden.close(f"logits.{when}", logits(image))
        compare_plan(golden, when, solved, kernel=False)

    look("eval")
    sgd = torch.optim.SGD(
        [ctx], lr=settings["lr"], momentum=settings["momentum"], weight_decay=settings["weight_decay"]
    )
    for k, (_, labels) in enumerate(golden.batches()):
        sgd.zero_grad()
        loss = F.cross_entropy(logits(image[:, k * golden.batch : (k + 1) * golden.batch]), labels)
        loss.backward()
        golden.close(f"loss.step{k}", loss)
        assert solved[-1][2] == iterations(golden)[f"train step {k}"]
        if k == 0:
            golden.close("grad.ctx", ctx.grad)
        sgd.step()
    golden.close("param.ctx", ctx)
    look("final")
