"""The benchmark's reference path is the authors' computation: other work, the same numbers, and it is counted right."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from bench import Bench, apart, columns, measure, proof
from heads import together
from meters import Memory, count
from reference import PlainText, joined, reference
from speed import continued
from steps import BATCH, OURS, PATHS, REFERENCE, SMALL, Case, Step, random_clip

from fewshot.methods import METHODS, get_method

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bench():
    made = Bench.__new__(Bench)  # without measuring the machine
    made.rows, made.device, made.precision, made.repeats, made.done = None, CPU, "fp32", 1, {}
    made.waited = None
    clip = random_clip(CPU, SMALL)
    made.clips = {OURS: clip, REFERENCE: reference(clip, piece=4)}
    made.environment, made.look_at_the_machine = {"peak_flops": 1e9}, lambda: None
    return made


def case(method: str, classes: int = 3) -> Case:
    return Case(method, classes, 2, options={"prompt_depth": 2} if method == "maple" else {})


@pytest.mark.parametrize("method", BATCH)
def test_both_paths_give_the_same_logits_and_gradients(bench, method):
    one = case(method)
    worst = proof(bench, one, bench.inputs(one.batch))
    assert worst["logits"] <= 1e-5 and worst["gradients"] <= 1e-4


def test_paths_that_differ_are_refused():
    one = {"x": torch.tensor([1.0, 100.0])}
    assert apart({"x": one["x"] + 1e-4}, one, 1e-5, "logits") < 1e-5
    with pytest.raises(SystemExit, match="logits: the paths disagree by 1.0e-04"):
        apart({"x": one["x"] + 1e-2}, one, 1e-5, "logits")
    with pytest.raises(SystemExit, match="different tensors, \\['y'\\]"):
        apart({"x": one["x"], "y": one["x"]}, one, 1e-5, "logits")
    with pytest.raises(SystemExit, match="disagree by nan"):
        apart({"x": one["x"] * float("nan")}, one, 1e-5, "logits")


@pytest.mark.parametrize("method", ["coop", "prograd", "cocoop"])
def test_in_pieces_with_given_gradients_a_step_is_the_whole_step(bench, method):
    one = case(method, classes=9)
    inputs = bench.inputs(one.batch)
    pieces = Step(bench.clips[REFERENCE], one, REFERENCE, *inputs)
    noted = {name: g.clone() for name, g in pieces.gradients().items()}
    assert len(bench.clips[REFERENCE].text.given) > 1, "nothing went in pieces"
    got = {name: g.clone() for name, g in pieces.gradients().items()}
    bench.clips[REFERENCE].text.given.clear()
    want = Step(reference(bench.clips[OURS]), one, REFERENCE, *inputs).gradients()
    for name, gradient in want.items():
        scale = float(gradient.abs().max())
        assert scale > 0 and not torch.allclose(noted[name], gradient, rtol=0, atol=1e-3 * scale), "noting is no step"
        assert torch.allclose(got[name], gradient, rtol=0, atol=1e-5 * scale)


def test_another_gradient_than_the_given_one_is_refused(bench):
    one = case("coop", classes=9)
    pieces = Step(bench.clips[REFERENCE], one, REFERENCE, *bench.inputs(one.batch))
    pieces.gradients()
    pieces.labels = (pieces.labels + 1) % 9
    with pytest.raises(RuntimeError, match="is not the one that was given"):
        pieces.gradients()
    bench.clips[REFERENCE].text.given.clear()


def test_the_reference_computes_all_77_positions_of_all_classes_in_all_blocks(bench):
    """By hand: in a block a position costs 12 w^2 multiplications, and attention 2 L w more."""
    length, width, blocks, classes = 77, 64, 3, 5
    step = Step(reference(bench.clips[OURS]), case("coop", classes), OURS, *bench.inputs(2))
    tower = blocks * classes * length * 2 * (12 * width**2 + 2 * length * width)
    with torch.no_grad():
        flops = count(step.model.text_features)[0]
    assert flops == tower + 2 * classes * width * 32  # and the projection


def test_a_linear_layer_and_attention_are_counted_forward_and_backward():
    x, w = torch.randn(6, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    flops, moved, _ = count(lambda: F.linear(x, w).sum().backward())
    assert flops == 3 * 2 * 6 * 4 * 3
    assert moved >= 4 * 3 * (24 + 12 + 18)
    q = torch.randn(2, 2, 5, 8, requires_grad=True)
    attention, *_ = count(lambda: F.scaled_dot_product_attention(q, q, q))
    assert attention == 2 * 2 * 2 * (2 * 5 * 5 * 8)


def test_memory_sees_what_was_held_in_between():
    torch.ones(10)
    with Memory(CPU) as memory:
        held = torch.ones(64 * 2**18)  # 64 MB, gone at the end
        del held
    assert memory.peak is None or 60e6 < memory.peak < 200e6


def test_the_low_rank_product_is_formed_only_by_the_reference(bench):
    one = case("clip_lora")
    inputs = bench.inputs(one.batch)
    flops = {path: count(Step(bench.clips[path], one, path, *inputs).train)[0] for path in PATHS}
    assert flops[REFERENCE] > 2 * flops[OURS]


def test_a_row_holds_both_paths_turn_by_turn_and_is_not_measured_again(bench, tmp_path):
    bench.rows, bench.done = tmp_path / "rows.jsonl", {}
    one = case("taskres")
    measure(bench, one)
    rows = list(bench.done.values())
    assert len(rows) == len(bench.rows.read_text().splitlines()) == 4
    assert {(row["phase"], row["path"]) for row in rows} == {(p, s) for p in ("train", "evaluate") for s in PATHS}
    assert all(max(row["proof"].values()) <= 1e-4 and row["flops"] > 0 and row["seconds"] > 0 for row in rows)
    assert {(row["phase"], *row["proof"]) for row in rows} == {("train", "gradients"), ("evaluate", "logits")}
    measure(bench, one)
    assert len(bench.rows.read_text().splitlines()) == 4
    bench.rows = None


def test_a_straight_line_through_two_measurements(bench):
    far = Case("coop", 1000, 8)
    bench.done = {
        f"train {replace(far, classes=n).key} {REFERENCE}": dict(seconds=1 + 2 * n, flops=n, bytes=n, memory=n)
        for n in (37, 100)
    }
    continued(bench, "train", far, (37, 100))
    row = bench.done[f"train {far.key} {REFERENCE}"]
    assert row["seconds"] == pytest.approx(2001) and row["flops"] == pytest.approx(1000)
    assert row["scaled_from"] == (37, 100) and row["proof"] is None and columns(far).items() <= row.items()


def test_small_heads_in_a_stack_are_timed_beside_the_same_runs_in_turn(bench, tmp_path):
    bench.rows = tmp_path / "r.jsonl"
    try:
        together(bench, quick=True)
    finally:
        bench.rows, bench.done = None, {}
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert {(row["method"], row["path"]) for row in rows} == {
        (name, path) for name in METHODS if get_method(name).head for path in PATHS
    }
    assert all(row["options"]["runs"] == 9 and 0 <= row["proof"]["weights"] < 1e-3 and row["seconds"] > 0 for row in rows)


def test_joined_writes_each_prefix_before_its_suffixes():
    prefix, suffix = torch.arange(2.0).view(2, 1, 1), torch.arange(4.0).view(4, 1, 1) + 10
    assert joined(prefix, suffix)[..., 0].tolist() == [[0, 10], [0, 11], [1, 12], [1, 13]]


def test_the_cut_tower_of_the_ablation_gives_the_same_features(bench):
    clip = bench.clips[OURS]
    tokens = clip.tokenize(["a photo of a cat.", "a photo of a very large grey dog."])
    with torch.no_grad():
        want = clip.text.encode_tokens(tokens)
        cut = PlainText(clip.text.module, 100, cut=True).encode_tokens(tokens)
    assert torch.allclose(cut, want, atol=1e-5)
