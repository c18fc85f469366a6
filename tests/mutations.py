"""Mistakes that are easily made, each of which certain tests must notice.

    python tests/mutations.py              # all of them, two at a time
    python tests/mutations.py maple eot    # those whose file or description has one of the words
    python tests/mutations.py --list

Each mistake is a change of a few characters in one file of the package. In a temporary copy of fewshot/ and tests/ one
of them is made at a time, and the tests that it names are run there. Every named test must fail, and all of them must
pass in the copy as it is. The exit status is 1 if a mistake goes unnoticed, 2 if the copy itself fails.

Add a line to MUTATIONS with every new method. tests/test_mutations.py sees to it that the old texts are still there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 600  # seconds for the tests of one mistake
CONTEXT = multiprocessing.get_context("forkserver")  # what takes long to import is imported once
CONTEXT.set_forkserver_preload(["torch", "open_clip", "sklearn.linear_model", "pytest"])


class Mutation(NamedTuple):
    file: str  # below fewshot/
    old: str  # stands exactly once in the file
    new: str
    mistake: str
    tests: tuple[str, ...]  # below tests/; without [..] one failing case is enough

    def applied(self, text: str) -> str:
        """The text with the mistake in it."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"fewshot/{self.file} has {self.old!r} {count} times, not once; renew {self.mistake!r}.")
        return text.replace(self.old, self.new)


def parity(*folders: str) -> tuple[str, ...]:
    return tuple(f"parity/test_parity.py::test_folder[{folder}]" for folder in folders)


MUTATIONS = (
    # the encoders
    Mutation(
        "clip.py", "return tokens.argmax(dim=-1)", "return tokens.argmax(dim=-1) - 1",
        "the text feature is read one position before EOT",
        ("test_text_tower.py::test_cut_and_shared_prompts_equal_open_clip", *parity("clip_backbone")),
    ),
    Mutation(
        "clip.py", "mask = self._mask(s, x) if p else None", "mask = None",
        "tokens behind a shared prefix see the tokens that follow them",
        ("test_text_tower.py::test_cut_and_shared_prompts_equal_open_clip", *parity("coop_ctx16", "maple")),
    ),
    Mutation(
        "clip.py", "device=like.device).triu_(1)", "device=like.device).triu_(2)",
        "the causal mask is one position late",
        ("test_text_tower.py::test_shared_prefix_has_the_features_and_the_gradient_of_the_plain_encoder",),
    ),
    Mutation(
        "packing.py", "> ends[:, None]", "> ends[:, None] + 1",
        "the EOT row of the last block sees the padding behind it",
        ("test_text_tower.py::test_cut_and_shared_prompts_equal_open_clip", *parity("coop_ctx4")),
    ),
    Mutation(
        "clip.py", "features = unit(features).reshape(", "features = features.reshape(",
        "templates are averaged before the text features are normalised",
        ("test_clip.py::test_zero_shot_weights_equal_open_clips_classifier",),
    ),
    Mutation(
        "clip.py", 'names = [c.replace("_", " ") for c in classnames]', "names = list(classnames)",
        "underscores stay in the class names of a prompt",
        ("test_clip.py::test_zero_shot_weights_equal_open_clips_classifier",),
    ),
    Mutation(
        "clip.py", "new = self.module.ln_pre(prompts)", "new = prompts",
        "visual prompts enter behind ln_pre",
        (
            "test_text_tower.py::test_visual_prompts_change_the_feature_and_deep_ones_replace_them",
            "test_plotpp.py::test_prompts_of_a_set_follow_the_patches_and_pass_the_first_norm",
            *parity("maple", "maple_full", "plotpp_stage1"),
        ),
    ),
    Mutation(
        "clip.py", "torch.cat((x[:, : -new.shape[1]], new), dim=1)", "torch.cat((x, new), dim=1)",
        "a deep visual prompt is added to the old ones instead of replacing them",
        (
            "test_text_tower.py::test_visual_prompts_change_the_feature_and_deep_ones_replace_them",
            *parity("maple", "maple_full"),
        ),
    ),
    # training and the data
    Mutation(
        "methods/method.py", "return warmup if epoch == 0 else peak", "return peak",
        "no epoch of warm-up (and the cosine above its top)",
        (
            "test_training.py::test_coop_drops_the_last_batch_and_changes_its_rate_per_epoch",
            "test_maple.py::test_training_is_the_base_to_new_protocol",
        ),
    ),
    Mutation(
        "methods/method.py", "momentum=0.9, weight_decay", "weight_decay",
        "SGD without momentum",
        parity("coop_ctx16", "cocoop", "maple", "plotpp_stage2"),
    ),
    Mutation(
        "methods/method.py", "if name not in self._kept or self._kept[name][0] != state:", "if name not in self._kept:",
        "text features kept for evaluation survive a change of the parameters",
        (
            "test_methods_prompts.py::test_text_features_are_computed_once_for_a_whole_evaluation",
            "test_maple.py::test_text_features_are_computed_once_for_a_whole_evaluation",
        ),
    ),
    Mutation(
        "training.py", "    task = task.without_test()\n", "",
        "a method can read the test pictures while it is fitted",
        ("test_contract.py::test_fit_cannot_reach_the_test_pictures[coop]",),
    ),
    Mutation(
        "training.py", "number = epoch if config.views is None else epoch % config.views", "number = 0",
        "every epoch sees the same augmented view",
        ("test_training.py::test_each_epoch_sees_a_new_view_unless_their_number_is_given",),
    ),
    Mutation(
        "data/dataset.py", "middle = (count + 1) // 2", "middle = count // 2",
        "the base half of an odd number of classes is the smaller one",
        ("test_data_dataset.py::test_halves_restrict_the_draw_of_all_classes_and_renumber",),
    ),
    # prompts
    Mutation(
        "prompts.py", 'f"{words} {name}."', 'f"{words} {name}"',
        "no full stop behind the class name",
        parity("coop_ctx4", "cocoop", "kgcoop", "maple"),
    ),
    Mutation(
        "prompts.py", "(tower.eot(clip.tokenize(names)) - 1)", "tower.eot(clip.tokenize(names))",
        "a context around the name counts the full stop as part of it",
        (
            "test_methods_prompts.py::test_vectors_stand_where_the_method_puts_them",
            *parity("coop_ctx4_middle", "coop_ctx4_front"),
        ),
    ),
    Mutation(
        "methods/coop.py", "self.clip.logit_scale * unit(x)", "self.clip.logit_scale * x",
        "CoOp: image features are not normalised",
        parity("coop_ctx16", "coop_ctx4_csc"),
    ),
    Mutation(
        "methods/coop.py", "drop_last = True", "drop_last = False",
        "CoOp: the incomplete last batch is trained on",
        ("test_training.py::test_coop_drops_the_last_batch_and_changes_its_rate_per_epoch",),
    ),
    Mutation(
        "methods/cocoop.py", "            return self._logits(unit(x))\n",
        "            t = unit(self.text_features(x))\n"
        "            return self.clip.logit_scale * (t @ unit(x).unsqueeze(2)).squeeze(2)\n",
        "CoCoOp: the small network reads features that are not normalised",
        ("test_cocoop.py::test_the_network_reads_features_of_unit_norm", *parity("cocoop")),
    ),
    Mutation(
        "methods/cocoop.py", "self.shift(f).unsqueeze(1)", "self.shift(f.mean(dim=0, keepdim=True)).unsqueeze(1)",
        "CoCoOp: one context for the whole batch",
        ("test_cocoop.py::test_each_picture_has_a_classifier_of_its_own", *parity("cocoop")),
    ),
    Mutation(
        "methods/kgcoop.py", "distance = 1 - (t * self.teacher).sum(dim=-1).mean()",
        "distance = (1 - (t * self.teacher).sum(dim=-1)).sum()",
        "KgCoOp: the distance to the teacher is summed over the classes",
        ("test_kgcoop.py::test_distance_is_the_mean_over_all_classes_and_no_picture_enters_it", *parity("kgcoop")),
    ),
    Mutation(
        "methods/prograd.py", "torch.where(along < 0,", "torch.where(along > 0,",
        "ProGrad: the gradient is projected where both agree",
        ("test_prograd.py::test_a_conflict_is_taken_away_and_agreement_left_alone", *parity("prograd_l08_t2")),
    ),
    Mutation(
        "methods/prograd.py", "u = g_kl / g_kl.norm()", "u = g_kl",
        "ProGrad: the direction is not of unit length",
        ("test_prograd.py::test_a_conflict_is_taken_away_and_agreement_left_alone", *parity("prograd_l08_t2")),
    ),
    Mutation(
        "methods/plotpp.py", "plan, _ = sinkhorn(torch.exp(-(1 - sim.detach()) / eps)",
        "plan, _ = sinkhorn.__wrapped__(torch.exp(-(1 - sim) / eps)",
        "PLOT++: the gradient goes through the transport plan",
        (
            "test_plotpp.py::test_the_score_is_the_sum_over_the_plan_and_the_plan_is_a_constant",
            *parity("plotpp_stage1", "plotpp_stage2"),
        ),
    ),
    Mutation(
        "methods/plotpp.py", "unit(f.mean(dim=0))", "unit(unit(f).mean(dim=0))",
        "PLOT++: features are normalised before they are pooled",
        ("test_plotpp.py::test_the_pooled_feature_is_a_mean_taken_before_normalising", *parity("plotpp_stage1")),
    ),
    Mutation(
        "methods/maple.py", "self.words = clean(c.ctx_init)",
        'self.words = " ".join(clean(c.ctx_init).split(" ")[: c.n_ctx])',
        'MaPLe: "of a" is missing behind the two vectors',
        ("test_maple.py::test_only_the_first_words_are_learned_and_of_a_stays", *parity("maple", "maple_full")),
    ),
    Mutation(
        "methods/maple.py", "features(first, deep=dict(enumerate(deep, 1))", "features(first, deep=dict(enumerate(deep))",
        "MaPLe: deep text prompts enter one block early",
        (
            "test_maple.py::test_both_encoders_equal_plain_ones_at_every_depth_with_their_gradient",
            *parity("maple", "maple_full"),
        ),
    ),
    Mutation(
        "methods/maple.py", "[first] + [others] * (c.prompt_depth - 1)", "[others] * c.prompt_depth",
        "MaPLe: the input level starts with the projection of the deep ones",
        ("test_maple.py::test_the_deep_projections_start_as_copies_and_the_first_has_its_own",),
    ),
    # low-rank branches
    Mutation(
        "lora.py", "alpha / r**0.5", "alpha / r",
        "CLIP-LoRA: alpha / r, as LoRA, instead of alpha / sqrt(r)",
        (
            "test_methods_lora.py::test_branch_and_merged_weights_equal_a_model_whose_weights_were_edited",
            *parity("clip_lora"),
        ),
    ),
    Mutation(
        "lora.py", "        base = list(project(h, attn.in_proj_weight, attn.in_proj_bias, parts))\n",
        "        h = F.dropout(h, self.dropout)\n"
        "        base = list(project(h, attn.in_proj_weight, attn.in_proj_bias, parts))\n",
        "CLIP-LoRA: dropout on the input of the frozen weights too",
        parity("clip_lora"),
    ),
    # adapters, caches and probes
    Mutation(
        "methods/clip_adapter.py", "F.relu(F.linear(F.relu(F.linear(f, self.down)), self.up))",
        "F.linear(F.relu(F.linear(f, self.down)), self.up)",
        "CLIP-Adapter: no ReLU behind the second layer",
        parity("clip_adapter", "clip_adapter_strongbaseline"),
    ),
    Mutation(
        "methods/clip_adapter.py", "self.ratio * self.adapt(f) + (1 - self.ratio) * f",
        "(1 - self.ratio) * self.adapt(f) + self.ratio * f",
        "CLIP-Adapter: the two shares of the mix are swapped",
        parity("clip_adapter"),
    ),
    Mutation(
        "methods/taskres.py", 'self.register_buffer("base", base,', 'self.register_buffer("base", unit(base),',
        "TaskRes: the residual is added to a normalised base",
        ("test_taskres.py::test_the_residual_is_added_before_the_base_is_normalised", *parity("taskres")),
    ),
    Mutation(
        "methods/taskres.py", "torch.optim.Adam(self.parameters()", "torch.optim.AdamW(self.parameters()",
        "TaskRes: decoupled weight decay",
        ("test_taskres.py::test_the_optimiser_is_adam_with_decay_in_the_gradient",),
    ),
    Mutation(
        "methods/tip_adapter.py", "index_add(0, self.labels, votes)",
        "index_add(0, self.labels, votes / self.labels.bincount()[self.labels, None])",
        "Tip-Adapter: the votes of a class are averaged",
        parity("tip_adapter", "tip_adapter_f"),
    ),
    Mutation(
        "methods/tip_adapter.py", "keys = unit(torch.stack(list(views)).mean(dim=0))",
        "keys = unit(torch.stack([unit(v) for v in views]).mean(dim=0))",
        "Tip-Adapter: each view is normalised before the mean",
        ("test_methods_features.py::test_the_cache_is_normalised_after_the_mean_of_the_views",),
    ),
    Mutation(
        "methods/tip_adapter_f.py", "nn.Parameter(keys.clone())", "nn.Parameter(keys)",
        "Tip-Adapter-F: training moves the keys of the training-free cache",
        ("test_methods_features.py::test_training_the_keys_leaves_the_training_free_cache_alone",),
    ),
    Mutation(
        "methods/lpplusplus.py", "self.weight = votes.t() @ f", "self.weight = votes.t() @ f / count[:, None]",
        "LP++: the weights start at class means",
        ("test_lpplusplus.py::test_the_start_on_classes_of_unequal_size", *parity("lpplusplus")),
    ),
    Mutation(
        "methods/lpplusplus.py", "MOMENTUM * speed_w + grad_w, MOMENTUM * speed_b + grad_b", "grad_w, grad_b",
        "LP++: no momentum",
        ("test_lpplusplus.py::test_the_descent_is_that_of_torchs_sgd_with_alpha_on_the_side", *parity("lpplusplus")),
    ),
    Mutation(
        "methods/lpplusplus.py", "off.t() @ x / len(f)", "off.t() @ x / len(x)",
        "LP++: each part of a pass is averaged by itself",
        ("test_lpplusplus.py::test_a_pass_in_parts_gives_the_gradients_of_a_whole_one",),
    ),
    Mutation(
        "methods/gda.py", "return zero_shot + self.alpha * gaussian", "return self.alpha * gaussian",
        "GDA: the zero-shot logits are not mixed in",
        ("test_gda.py::test_pictures_that_do_not_vary_leave_the_zero_shot_classifier",),
    ),
    Mutation(
        "methods/gda.py", "-(weight * means).sum(dim=1) / 2", "-(weight * means).sum(dim=1)",
        "GDA: the bias without its half",
        ("test_gda.py::test_the_scores_are_those_of_scikit_learns_lda_with_the_same_covariance",),
    ),
    Mutation(
        "methods/gda.py", "f = unit(features.cpu()).double()", "f = features.cpu().double()",
        "GDA: features are not normalised before the covariance",
        ("test_gda.py::test_the_precision_is_the_authors_also_where_the_pictures_hardly_differ",),
    ),
    Mutation(
        "methods/cross_modal_probe.py", "unit(raw.view(", "unit(unit(raw).view(",
        "cross-modal probe: the zero-shot start averages normalised text features",
        ("test_cross_modal_probe.py::test_the_zero_shot_start_averages_raw_text_features",),
    ),
    Mutation(
        "methods/cross_modal_probe.py", "prompts = batch_size // 2 if", "prompts = batch_size // 4 if",
        "cross-modal probe: a batch is not half prompts",
        ("test_cross_modal_probe.py::test_half_of_a_batch_is_prompts_of_every_template",),
    ),
    Mutation(
        "methods/linear_probe.py", "if accuracy(left) < accuracy(right):", "if accuracy(left) <= accuracy(right):",
        "linear probe: a tie of the search goes to the larger C",
        ("test_methods_features.py::test_the_search_prefers_large_c_in_the_sweep_and_the_left_end_after",),
    ),
    Mutation(
        "methods/fine_tune.py", "self.encoder.eval()", "pass",
        "fine-tuning: batch norm sees train mode",
        ("test_fine_tune.py::test_statistics_of_batch_norm_stay",),
    ),
    Mutation(
        "methods/fine_tune.py", "share * self.bias", "self.bias",
        "fine-tuning: the bias is not interpolated",
        ("test_fine_tune.py::test_tested_weights_lie_between_start_and_end_and_training_sees_the_end_alone",),
    ),
    Mutation(
        "methods/fine_tune.py", "self.clip.logit_scale * self.clip.zero_shot_weights", "self.clip.zero_shot_weights",
        "fine-tuning: the head starts without the temperature",
        ("test_fine_tune.py::test_it_starts_as_zero_shot_with_the_templates_classifier",),
    ),
    Mutation(
        "methods/text_adapter.py", "return SCALE * self.features(x) @", "return SCALE * x @",
        "text adapter: image features are not normalised",
        parity("text_adapter"),
    ),
    Mutation(
        "pair_losses.py", "torch.where(positive, near, far), kept / kept.sum()",
        "torch.where(positive, far, near), kept / kept.sum()",
        "text adapter: the loss as it is printed",
        (*parity("text_adapter"), "test_text_adapter.py::test_swapped_is_the_usual_cosine_embedding_loss"),
    ),
    Mutation(
        "qformer.py", "if i % cross_every == 0:", "if i % cross_every == 1:",
        "text adapter: cross-attention starts with the second layer",
        (*parity("text_adapter"), "test_text_adapter.py::test_cross_attention_is_in_layers_0_2_and_so_on"),
    ),
    Mutation(
        "methods/zero_shot.py", "self.config.logit_scale * unit(x)", "self.config.logit_scale * x",
        "zero-shot: image features are not normalised",
        parity("zero_shot"),
    ),
)  # fmt: skip


def copy_of_the_project(place: Path) -> Path:
    """fewshot/, tests/ and pyproject.toml, which holds pytest's settings, below `place`."""
    for name in ("fewshot", "tests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.lock"))
    shutil.copy(ROOT / "pyproject.toml", place)
    return place


def failing(copy: Path, tests: tuple[str, ...]) -> tuple[set[str], int]:
    """Which of the named tests fail in the copy, and how many cases ran.

    RuntimeError when they could not run, or when there is none of a name.
    """
    report, log = copy / "report.xml", copy / "log.txt"
    report.unlink(missing_ok=True)
    shutil.rmtree(copy / "cache", ignore_errors=True)  # what a mistake has computed must not serve the next
    child = CONTEXT.Process(target=run_tests, args=(copy, tests, report, log))
    child.start()
    child.join(LIMIT)
    if child.is_alive():
        child.kill()
        raise RuntimeError(f"the tests were not done after {LIMIT} s.")
    if child.exitcode not in (0, 1):  # of pytest: all passed, some failed
        raise RuntimeError(log.read_text()[-2000:])
    ran = cases(report)
    for test in tests:
        if not any(matches(test, case) for case in ran):
            raise RuntimeError(f"no case of {test} ran.")
    return {test for test in tests if any(failed and matches(test, case) for case, failed in ran.items())}, len(ran)


def run_tests(copy: Path, tests: tuple[str, ...], report: Path, log: Path) -> None:
    """In a process of its own, forked from one that has torch and open_clip but nothing of this project."""
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.path[:] = [str(copy), *(p for p in sys.path if Path(p) not in (ROOT, ROOT / "tests"))]
    sys.dont_write_bytecode = True  # a mistake of the same length and second would run the old bytecode
    os.chdir(copy)
    for name in [n for n in os.environ if n.startswith(("FEWSHOT_", "PYTEST_"))]:
        del os.environ[name]
    os.environ["FEWSHOT_CACHE"] = str(copy / "cache")
    import pytest

    import fewshot

    if not Path(fewshot.__file__).is_relative_to(copy):
        print(f"the tests would run {fewshot.__file__} and not the copy.", flush=True)
        sys.exit(9)
    options = ["-q", "--tb=short", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    sys.exit(pytest.main([*options, *(f"tests/{test}" for test in tests)]))


def cases(report: Path) -> dict[str, bool]:
    """The cases of a JUnit report that ran, named as in `Mutation.tests`, and whether they failed."""
    found = [c for c in ElementTree.parse(report).iter("testcase") if c.find("skipped") is None]
    place = {c: c.get("classname").removeprefix("tests.").replace(".", "/") for c in found}
    return {f"{place[c]}.py::{c.get('name')}": c.find("failure") is not None for c in found}


def matches(test: str, case: str) -> bool:
    return case == test or case.split("[")[0] == test


def check(mutation: Mutation, copies: SimpleQueue) -> tuple[Mutation, tuple[str, ...], str, float]:
    """The mutation, the tests that did not notice it, what went wrong otherwise, and the seconds it took."""
    copy, start = copies.get(), time.perf_counter()
    path = copy / "fewshot" / mutation.file
    text, problem, noticed = path.read_text(), "", set()
    try:
        path.write_text(mutation.applied(text))
        noticed, _ = failing(copy, mutation.tests)
    except (RuntimeError, ValueError) as error:
        problem = str(error)
    finally:
        path.write_text(text)
        copies.put(copy)
    missed = tuple(t for t in mutation.tests if t not in noticed)
    return mutation, missed, problem, time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mistakes whose file or description has one of these")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="name the mistakes and run nothing")
    args = parser.parse_args(argv)
    words = [w.lower() for w in args.words]
    chosen = [m for m in MUTATIONS if not words or any(w in f"{m.file} {m.mistake}".lower() for w in words)]
    if args.list or not chosen:
        print(*(f"{m.file:30} {m.mistake}" for m in chosen), sep="\n")
        return 0 if chosen else 2

    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder, ThreadPoolExecutor(args.jobs) as pool:
        copies: SimpleQueue = SimpleQueue()
        for i in range(args.jobs):
            copies.put(copy_of_the_project(Path(folder) / str(i)))
        first = copies.get()
        copies.put(first)
        named = tuple(dict.fromkeys(test for m in chosen for test in m.tests))
        try:
            failed, ran = failing(first, named)
        except RuntimeError as error:
            print(error)
            return 2
        print(
            f"without a mistake: {ran} cases of {len(named)} tests, {len(failed)} failing", *sorted(failed), sep="\n  "
        )
        if failed:
            return 2
        survived = 0
        print(f"\n{'':9} {'file':30} {'mistake':78} tests  seconds")
        for m, missed, problem, seconds in pool.map(lambda m: check(m, copies), chosen):
            verdict = "SURVIVED" if missed else "noticed"
            survived += bool(missed)
            caught = f"{len(m.tests) - len(missed)}/{len(m.tests)}"
            print(f"{verdict:9} {m.file:30} {m.mistake:78} {caught:>5} {seconds:8.0f}", flush=True)
            for test in missed:
                print(f"          not noticed by {test}")
            if problem:
                print(problem)
        print(f"\n{len(chosen)} mistakes, {len(chosen) - survived} noticed by every test named for them")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
