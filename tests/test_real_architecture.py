"""The method table on the real architecture: ViT-B/16 with random weights and drawn pictures in Oxford Pets' real folders.

The numbers mean nothing and the verdict says so; what is shown is that nothing between the weight file and the verdict was
made for the toy world alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import layouts
import nbformat
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fewshot.data.catalogue import entry
from fewshot.rows import Rows
from fewshot.runs import ROOT

LIMIT = 12
SHORT = {"tip_adapter_f": {"augment_epoch": 1, "epochs": 1, "views": 1, "search_step": [5, 5]}}


def save_random_weights(path: Path) -> None:
    """ViT-B/16 in OpenAI's naming and precision, with the three scalars that only OpenAI's files have."""
    import open_clip
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None)
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    scalars = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    state |= {name: torch.tensor(value) for name, value in scalars.items()}
    save_file(state, path, metadata={"origin": "random weights"})


class BreedPainter:
    """A picture of noise in the tint of its breed; the pictures of a breed are one file under many names."""

    def __init__(self, folder: Path):
        self.folder, self.rng = folder, np.random.default_rng(0)
        folder.mkdir()

    def __call__(self, path: Path) -> None:
        source = self.folder / f"{path.name.rpartition('_')[0]}.jpg"
        if not source.exists():
            pixels = self.rng.integers(0, 200, 3) + self.rng.integers(0, 56, (60, 80, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, path)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """(the executed notebook, the rows) of the README's command with a weight file, few pictures and few steps."""
    folder = tmp_path_factory.mktemp("real")
    weights, rows, output = folder / "vit.safetensors", folder / "rows.jsonl", folder / "out.ipynb"
    save_random_weights(weights)
    pets = entry("oxford_pets")
    layouts.write(
        pets,
        folder / "data",
        layouts.real("oxford_pets") or layouts.made_up("oxford_pets"),
        BreedPainter(folder / "breeds"),
    )
    short = yaml.safe_load((ROOT / "profiles" / "paper.yaml").read_text()) | {"profile": "short", "methods": SHORT}
    (folder / "short.yaml").write_text(yaml.safe_dump(short))
    ask = {"profile": str(folder / "short.yaml"), "weights": str(weights), "datasets": "[oxford_pets]", "shots": "[1]",
           "methods": "[zero_shot, tip_adapter_f]", "seeds": "[1]", "test_images": LIMIT, "rows": str(rows), "check": 0,
           "minutes": 60}  # fmt: skip
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / "method_table.ipynb"), str(output)]
    command += ["-f", str(ROOT / "profiles" / "paper.yaml"), "--kernel", "python3", "--no-progress-bar"]
    command += [word for name, value in ask.items() for word in ("-p", name, str(value))]
    places = {name: str(folder / name) for name in ("data", "cache", "results")}
    env = os.environ | {f"FEWSHOT_{name.upper()}": place for name, place in places.items()}
    env |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(output, as_version=4), Rows(rows).frame()


def shown(notebook, cell: str) -> str:
    outputs = next(each for each in notebook.cells if each.id == cell).outputs
    texts = [
        out.get("text") or out.get("data", {}).get("text/html") or out.get("data", {}).get("text/plain")
        for out in outputs
    ]
    return "\n".join(filter(None, texts))


def test_the_rows_say_which_weights_and_how_many_test_pictures(executed):
    _, rows = executed
    assert list(rows["method"]) == ["zero_shot", "tip_adapter_f"] and list(rows["n_test"]) == [LIMIT, LIMIT]
    assert set(rows["weights"]) == {"random weights"} and set(rows["limit"]) == {LIMIT}
    assert set(rows["backbone"]) == {"ViT-B-16-quickgelu"} and rows["parameters"].max() == 37 * 512


def test_the_tables_show_the_rows_beside_the_papers_numbers(executed):
    notebook, _ = executed
    tables = shown(notebook, "measured-and-published")
    assert (
        "Zero-shot CLIP" in tables and "Tip-Adapter-F" in tables and "89.1" in tables
    )  # zero-shot in CLIP-LoRA's table 2
    assert f"Tested on at most {LIMIT} test pictures" in tables and "not run" not in tables


def test_the_verdict_is_not_comparable_because_of_random_weights(executed):
    notebook, _ = executed
    assert shown(notebook, "each-pair").count("not comparable: random weights") == 2
    assert "1 of 1 data sets not comparable: random weights" in shown(notebook, "zero-shot-matches")


def test_the_profile_is_a_file_of_notebook_parameters(executed):
    notebook, _ = executed
    injected = next(each.source for each in notebook.cells if "injected-parameters" in each.metadata.get("tags", []))
    assert 'backbone = "ViT-B-16-quickgelu"' in injected
