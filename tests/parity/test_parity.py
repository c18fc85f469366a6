"""Every tensor of every fixture folder, against the method of that name.

A folder belongs to the check module `check_*.py` whose FOLDERS patterns match its name. The set is found through
$FEWSHOT_FIXTURES (default: tests/fixtures); nothing here knows its widths, depths, batch or class names.
"""

import importlib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from golden import ROOT, Golden, world

FOLDERS = sorted(p.name for p in ROOT.iterdir() if (p / "golden.safetensors").is_file())
CHECKS = [importlib.import_module(p.stem) for p in sorted(Path(__file__).parent.glob("check_*.py"))]


def check_of(folder: str):
    found = [c for c in CHECKS if any(fnmatch(folder, pattern) for pattern in c.FOLDERS)]
    assert len(found) < 2, f"{folder} belongs to {[c.__name__ for c in found]}"
    return found[0] if found else None


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder(folder, record_property):
    check = check_of(folder)
    if check is None:
        pytest.skip(f"MISSING: no method yet for the fixture {folder}")
    golden = Golden(ROOT / folder)
    before = golden.clip.state_hash()
    check.check(golden)
    assert golden.left() == [], f"{folder}: not compared"
    assert golden.clip.state_hash() == before, f"{folder}: the CLIP was changed"
    record_property("tensors", len(golden.tensors))


def test_every_check_has_a_folder_and_the_folders_are_there():
    assert FOLDERS, f"no fixtures under {ROOT}"
    for check in CHECKS:
        assert any(check_of(folder) is check for folder in FOLDERS), f"{check.__name__} matches no folder of {ROOT}"


def test_a_tensor_that_is_not_compared_is_noticed():
    golden = Golden(ROOT / "zero_shot")
    golden.given("image_features.raw")
    assert "logits.eval" in golden.left() and "image_features.raw" not in golden.left()


def test_a_wrong_number_and_a_wrong_shape_fail():
    golden = Golden(ROOT / "zero_shot")
    want = golden.tensors["logits.eval"]
    golden.close("logits.eval", want)
    with pytest.raises(AssertionError, match="off by"):
        golden.close("logits.eval", want + 1e-3)
    with pytest.raises(AssertionError, match="off by"):
        golden.close("logits.eval", torch.full_like(want, float("nan")))
    with pytest.raises(AssertionError, match="shape"):
        golden.close("logits.eval", want[:1])


def test_inputs_of_the_set_are_the_features_of_its_clip():
    from safetensors.torch import load_file

    clip, inputs, meta = world()
    stored = load_file(ROOT / "inputs.safetensors")
    prompts = [meta["template"].replace("{}", name) for name in meta["classnames"]]
    assert torch.equal(clip.tokenize(prompts), stored["tokens"].long())
    for got, key in (
        (clip.encode_image(inputs["images"]), "image_features"),
        (clip.encode_text(prompts), "text_features"),
    ):
        want = stored[key]
        if want.norm(dim=-1).sub(1).abs().max() < 1e-4:  # stored at unit norm
            got = got / got.norm(dim=-1, keepdim=True)
        assert (got - want).abs().max() <= 1e-5 * want.abs().max()
