"""No memory, no room, no writable place, a clock that jumps, numbers that are none: one sentence, and nothing torn."""

from __future__ import annotations

import copy
import errno
import itertools
import json
import os
import tempfile
import time
import warnings
from pathlib import Path

import pytest
import tiny
import torch
from test_bad_input import listing
from test_runs import lines, made, same_weights, shared, some

import fewshot
from fewshot.clip import TextTower
from fewshot.data import export_split
from fewshot.errors import FewshotError
from fewshot.grids import complete
from fewshot.lora import LowRank
from fewshot.methods import get_method
from fewshot.methods.method import Names, make_config
from fewshot.prompts import Prompts
from fewshot.rows import Rows, Unwritable

NAMES = ("cat", "a much longer name of a dog", "cow", "one more name", "horse")


# ---- numbers that are none


@pytest.mark.parametrize(
    "field", [{"nll": float("nan")}, {"reliability": [[1.0, float("inf")]]}, {"chosen": {"beta": float("nan")}}]
)
def test_a_run_whose_numbers_are_none_is_not_stored_and_the_others_are(tmp_path, field):
    def run_one(one):
        return made(one) | (field if one.seed == 2 else {})

    with pytest.raises(FewshotError, match="1 of 3 runs failed.* holds a number that is not finite") as caught:
        shared(some(3), tmp_path / "r.jsonl", run_one)
    assert "\n" not in str(caught.value) and [row["seed"] for row in lines(tmp_path / "r.jsonl")] == [1, 3]


def test_a_model_whose_scores_are_no_numbers_has_no_accuracy():
    model = fewshot.fit("zero_shot", tiny.clip(), tiny.task())
    model.weights[0, 0] = float("nan")
    with pytest.raises(
        FewshotError, match="Zero-shot CLIP gives 40 of 40 pictures scores that are no numbers; fit it again"
    ):
        fewshot.evaluate(model, tiny.task().test)


# ---- no memory


def crowded(monkeypatch, most: int) -> list[int]:
    """A device that holds the activations of `most` classes; the list tells how many went in at a time."""
    plain, seen = TextTower.run, []

    def run(self, prefix, suffix, *rest, **options):
        seen.append(len(suffix))
        if len(suffix) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")
        return plain(self, prefix, suffix, *rest, **options)

    monkeypatch.setattr(TextTower, "run", run)
    return seen


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("most", [1, 2, 4])
def test_classes_that_do_not_fit_go_in_smaller_groups_and_give_the_same(most, own, monkeypatch):
    def features(prompts):
        context = torch.linspace(-1, 1, 3 * tiny.TEXT["width"]).reshape(3, -1)
        context = (context.expand(len(NAMES), -1, -1).clone() if own else context).requires_grad_()
        found = prompts.features(context, own=own)
        (gradient,) = torch.autograd.grad(found.square().sum(), context)
        return found, gradient

    expected = features(Prompts(tiny.clip(), NAMES, 3))
    seen = crowded(monkeypatch, most)
    prompts = Prompts(tiny.clip(), NAMES, 3)
    with pytest.warns(UserWarning, match="prompts of 5 classes do not fit into the memory together") as told:
        first = features(prompts)
    del seen[:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = features(prompts)  # it knows by now, and says no more
    assert len(told) == 1 and max(seen) <= most
    for found in (first, second):
        for a, b in zip(found, expected, strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_a_single_class_that_does_not_fit_is_one_sentence(monkeypatch):
    crowded(monkeypatch, 0)
    context = torch.zeros(3, tiny.TEXT["width"])
    with pytest.raises(FewshotError, match="a single class does not fit into the memory; lower batch_size"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Prompts(tiny.clip(), NAMES, 3).features(context)


@pytest.mark.parametrize("case", ["plotpp", "clip_lora"])
def test_the_other_text_passes_go_in_smaller_groups_too(case, monkeypatch):
    """Those of the methods that do not splice through Prompts."""
    cls = get_method(case)
    names = Names("tiny", NAMES, "a photo of a {}.", 4)

    def gradient():
        model = cls(tiny.clip(), names, make_config(cls, {"dropout": 0.0} if case == "clip_lora" else {})).train()
        own = [p for name, p in model.named_parameters() if "vision" not in name and not name.endswith("A")]
        return torch.autograd.grad(model.text_features().square().sum() + 0 * own[0].sum(), own)

    expected = gradient()
    seen = crowded(monkeypatch, 8 if case == "plotpp" else 2)
    with pytest.warns(UserWarning, match="do not fit into the memory together"):
        found = gradient()
    assert len(seen) > 2
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5 * float(b.abs().max()) + 1e-7)


def test_what_a_pass_keeps_stays_in_the_budget_and_is_the_same():
    """The estimate is near what is kept, and not below; a budget of a third of it makes pieces, which keep less than half."""
    clip, context = tiny.clip(), torch.linspace(-1, 1, 16 * tiny.TEXT["width"]).reshape(16, -1).requires_grad_()
    names = [f"{a} {b}" for a in ("red", "small northern", "great") for b in ("cat", "albatross", "wild cat")]
    prompts = Prompts(clip, names, 16)
    tower = prompts.tower = copy.copy(clip.text)

    def kept(budget):
        tower.budget = budget
        size, found = tiny.kept(clip, lambda: prompts.features(context))
        (gradient,) = torch.autograd.grad(found.square().sum(), context)
        return size, found, gradient

    whole, *expected = kept(1e12)
    mean, longest = float(prompts.eot.double().mean()) + 1 - 17, int(prompts.eot.max()) + 1 - 17
    estimate = 4 * len(names) * tower.held(mean, longest, 17, False)
    assert whole < 1.05 * estimate < 1.5 * whole
    less, *found = kept(estimate / 3)
    assert less < whole / 2
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5 * float(b.detach().abs().max()))


def test_what_low_rank_branches_keep_is_counted():
    clip = tiny.clip()
    tower = clip.text
    lora = LowRank(tower.blocks, range(3), "qkv", 2, 1.0, 0.25, torch.Generator().manual_seed(0))
    names = [f"{a} {b}" for a in ("red", "small northern") for b in ("cats", "albatross", "wild dogs")]
    tokens = clip.tokenize([f"a photo of a {name}." for name in names])
    whole, _ = tiny.kept(clip, lambda: tower.encode_tokens(tokens, share=False, adapters=lora.adapters()))
    ends = tower.eot(tokens) + 1
    estimate = 4 * len(tokens) * tower.held(float(ends.double().mean()), int(ends.max()), 0, True)
    assert whole < 1.05 * estimate < 1.5 * whole


def test_another_error_of_the_device_stays_what_it_is(monkeypatch):
    def run(*_, **__):
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(TextTower, "run", run)
    with pytest.raises(RuntimeError, match="device-side assert"):
        Prompts(tiny.clip(), NAMES, 3).features(torch.zeros(3, tiny.TEXT["width"]))


# ---- a clock that jumps


def test_a_clock_that_jumps_loses_no_run_and_no_deadline(tmp_path, monkeypatch):
    jumps = itertools.cycle([0.0, 4e9, 1e9, 2e9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    frame = shared(some(3), tmp_path / "r.jsonl", minutes=1)
    assert list(frame["seed"]) == [1, 2, 3]
    steady = itertools.count(0.0, 25.0)  # seconds between two looks at the clock that cannot jump
    monkeypatch.setattr("fewshot.grids.time.monotonic", lambda: next(steady))
    assert len(shared(some(9), tmp_path / "s.jsonl", minutes=1)) == 2


# ---- no room


class Full:
    """A disk that has become full, or read-only, at one of the calls that change it."""

    def __init__(self, patch: pytest.MonkeyPatch, call: str):
        module = tempfile if call == "mkstemp" else os
        patch.setattr(module, call, self)
        self.code = errno.EROFS if call in ("mkstemp", "replace") else errno.ENOSPC

    def __call__(self, *arguments, **options):
        raise OSError(self.code, os.strerror(self.code))


def writers() -> dict:
    model = fewshot.fit("zero_shot", tiny.clip(), tiny.task())
    rows = [made(one) for one in some(2)]

    def tidy(path: Path):
        Rows(path).tidy()

    return {
        "model.safetensors": lambda path: model.save(path),
        "split.jsonl": lambda path: export_split(tiny.task(), path),
        "sorted.jsonl": tidy,
        "rows": rows,
    }


@pytest.mark.parametrize("call", ["mkstemp", "fsync", "replace"])
@pytest.mark.parametrize("name", ["model.safetensors", "split.jsonl", "sorted.jsonl"])
@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_cannot_be_written_is_as_it_was(name, call, there, tmp_path, monkeypatch):
    tools = writers()
    path = tmp_path / name
    if name == "sorted.jsonl":
        for row in tools["rows"]:
            Rows(path).append(row)
    elif there:
        tools[name](path)
    before = listing(tmp_path)
    with monkeypatch.context() as patch:
        Full(patch, call)
        with pytest.raises(
            FewshotError, match=f"{name} cannot be written .*; choose another place, or free some space"
        ) as e:
            tools[name](path)
    assert "\n" not in str(e.value) and listing(tmp_path) == before
    tools[name](path)  # and goes on when there is room


def test_a_serialiser_that_finds_no_room_says_so_too(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*_, **__):
        raise SafetensorError("Error while serializing: IoError(Os { code: 28, kind: StorageFull })")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(FewshotError, match="m.safetensors cannot be written .*StorageFull"):
        writers()["model.safetensors"](tmp_path / "m.safetensors")
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("call", ["mkstemp", "fsync", "replace"])
def test_features_that_cannot_be_kept_name_the_cache_and_leave_nothing_behind(call, tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    images = tiny.task().train
    with monkeypatch.context() as patch:
        Full(patch, call)
        with pytest.raises(
            FewshotError, match="cannot be written .*; set FEWSHOT_CACHE to a writable folder with more room"
        ):
            fewshot.image_features(tiny.clip(), images)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"]
    assert fewshot.image_features(tiny.clip(), images).shape == (len(images), 32)


@pytest.mark.parametrize("call", ["open", "write", "fsync"])
@pytest.mark.parametrize("stored", [0, 2])
def test_a_row_that_cannot_be_stored_stops_the_grid_and_leaves_the_file_as_it_was(call, stored, tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    for one in some(stored):
        Rows(path).append(made(one))
    before = path.read_bytes() if stored else None
    ran = []

    def run_one(one):
        ran.append(one)
        return made(one)

    with monkeypatch.context() as patch:
        full_for_rows(patch, call, path)
        with pytest.raises(Unwritable, match="could not take the row .*; free some space") as caught:
            shared(some(9), path, run_one)
    assert "\n" not in str(caught.value) and len(ran) == 1, "the other runs would be lost as well"
    assert (path.read_bytes() if path.exists() else None) == before
    assert len(shared(some(9), path, run_one)) == 9 and len(ran) == 10 - stored


def full_for_rows(patch: pytest.MonkeyPatch, call: str, path: Path) -> None:
    """Only the file of rows cannot be written; locks and whatever else can."""
    plain = {name: getattr(os, name) for name in ("open", "write", "fsync")}
    own: set[int] = set()

    def open_(name, *rest, **options):
        if Path(os.fsdecode(name)) == path and call == "open":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        handle = plain["open"](name, *rest, **options)
        if Path(os.fsdecode(name)) == path:
            own.add(handle)
        return handle

    def write(handle, data):
        if handle in own and call == "write":
            plain["write"](handle, data[: len(data) // 2])  # half of it fits
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain["write"](handle, data)

    def fsync(handle):
        if handle in own and call == "fsync":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain["fsync"](handle)

    for name, function in {"open": open_, "write": write, "fsync": fsync}.items():
        patch.setattr(os, name, function)


def test_a_place_where_no_lock_can_be_made_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "r.jsonl", tmp_path / "file" / "deep" / "r.jsonl"):
        with pytest.raises(FewshotError, match="choose a .*writable place"):
            Rows(path).append(made(some(1)[0]))
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FewshotError, match="set FEWSHOT_CACHE to a writable folder"):
        fewshot.image_features(tiny.clip(), tiny.task().train)
    assert listing(tmp_path) == {"file": b""}


def test_a_failing_run_is_named_even_where_its_traceback_cannot_be_kept(tmp_path, monkeypatch):
    def run_one(one):
        raise RuntimeError("the reason")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FewshotError, match="2 of 2 runs failed .*RuntimeError: the reason"):
        shared(some(2), tmp_path / "r.jsonl", run_one)


def test_rows_of_the_project_that_cannot_be_read_name_themselves(tmp_path):
    (tmp_path / "stored.jsonl").write_text(json.dumps({"key": 1}) + "\n")
    with pytest.raises(FewshotError, match="stored.jsonl line 1 is not a row"):
        complete(some(1), tmp_path / "r.jsonl", [tmp_path / "stored.jsonl"], run_one=made, stamp_of=same_weights)
    assert not (tmp_path / "r.jsonl").exists()


def test_a_grid_that_cannot_claim_a_run_stops_at_the_first(tmp_path, monkeypatch):
    """Every other run would end in the same sentence."""
    from filelock import FileLock

    def full(self, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(FileLock, "acquire", full)
    with pytest.raises(Unwritable, match=".r.jsonl.locks cannot be written to .*; choose a writable place for the rows"):
        shared(some(9), tmp_path / "r.jsonl")
    assert not (tmp_path / "r.failed").exists() and not (tmp_path / "r.jsonl").exists()


def test_runs_leave_no_locks_and_one_that_failed_can_be_claimed_again(tmp_path):
    def run_one(one):
        if one.seed == 2:
            raise RuntimeError("no")
        return made(one)

    with pytest.raises(FewshotError, match="1 of 3 runs failed"):
        shared(some(3), tmp_path / "r.jsonl", run_one)
    locks = tmp_path / ".r.jsonl.locks"
    assert {path.name for path in locks.iterdir()} == {"append"}
    shared(some(3), tmp_path / "r.jsonl")
    assert {path.name for path in locks.iterdir()} == {"append"}


@pytest.mark.parametrize("there", [True, False])
def test_a_notebook_that_finds_no_room_leaves_the_copy_as_it_was(there, tmp_path, monkeypatch, capsys):
    import nbformat
    import papermill

    from fewshot.__main__ import main

    cell = nbformat.v4.new_code_cell("n: int = 1", metadata={"tags": ["parameters"]})
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=kernel), tmp_path / "book.ipynb")
    if there:
        (tmp_path / "out.ipynb").write_text("the copy")
    before = listing(tmp_path)

    def full(_, output, *__, **___):
        Path(output).write_text("half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(papermill, "execute_notebook", full)
    assert main(["notebook", str(tmp_path / "book.ipynb"), "-o", str(tmp_path / "out.ipynb")]) == 2
    said = capsys.readouterr().err
    assert "out.ipynb cannot be written (No space left on device); choose another place, or free some space." in said
    assert listing(tmp_path) == before
