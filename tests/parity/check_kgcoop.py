"""KgCoOp: CoOp's forward, the teacher, and the loss with its two parts at every step."""

from check_coop import check_forward, optimizer, settings
from golden import train

from fewshot.methods.kgcoop import KgCoOp

FOLDERS = ("kgcoop*",)


class Watched(KgCoOp):
    """Notes the two parts of every loss."""

    def losses(self, x, labels):
        parts = super().losses(x, labels)
        self.seen.append([p.detach() for p in parts])
        return parts


def check(golden):
    given = golden.meta["hyperparameters"]
    config = KgCoOp.Config(
        n_ctx=given["n_ctx"], ctx_init=given["ctx_init"] or "", w=given["W"], template=given["teacher_template"],
        **settings(golden),
    )  # fmt: skip
    model = Watched(golden.clip, golden.task(), config)
    model.seen = []
    if config.ctx_init:
        golden.close("init.ctx", model.ctx)
        assert len(model.ctx) == given["n_ctx"]
    golden.close("teacher.text_features", model.teacher)
    features = check_forward(golden, model, config.ctx_init or " ".join(["X"] * config.n_ctx))
    ctx = {"ctx": lambda read: read(model.ctx)}
    train(golden, model, golden.clip.encode_image, ctx, optimizer=optimizer(golden, model))
    for step, (ce, distance) in enumerate(model.seen):
        golden.close(f"loss_ce.step{step}", ce)
        golden.close(f"loss_kg.step{step}", distance)
    golden.close("logits.final", model.logits(features))
