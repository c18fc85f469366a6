"""The fewshot command: cheap to start, one line for a mistake, the right exit code."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import nbformat
import pytest
from test_runs import made, some

from fewshot.__main__ import main
from fewshot.methods import METHODS
from fewshot.rows import Rows


def refused(capsys, *arguments: str) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("fewshot: ") and err.count("\n") == 1 and out == ""
    return err


def test_help_and_methods_start_without_torch():
    code = (
        "import sys\nfrom fewshot.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and all(name in done.stdout for name in ("methods", "run", "rows", "notebook")), (
        done.stderr
    )
    code = "import sys\nfrom fewshot.__main__ import main\nmain(['methods'])\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and [line.split()[0] for line in done.stdout.splitlines()] == list(METHODS), done.stderr


def test_typos_are_one_line_and_exit_2(capsys, tmp_path):
    rows = str(tmp_path / "r.jsonl")
    ask = ["run", "--datasets", "toy/pets", "--rows", rows, "--methods"]
    assert "unknown method 'copp'; did you mean 'coop'?" in refused(capsys, *ask, "copp")
    assert "unknown profile 'to'; did you mean 'toy'?" in refused(capsys, *ask, "coop", "--profile", "to")
    assert "--workers must be 0 or more" in refused(capsys, *ask, "coop", "--workers", "-1")
    assert f"there is no file {rows}" in refused(capsys, "rows", rows)
    assert "there is no file m.safetensors" in refused(capsys, "predict", "m.safetensors", "a.png")
    assert not (tmp_path / "r.jsonl").exists()


def test_rows_prints_means_and_csv(capsys, tmp_path):
    rows = Rows(tmp_path / "r.jsonl")
    for one in some(2):
        rows.append(made(one))
    assert main(["rows", str(rows.path)]) == 0
    assert "51.50 0.50  2" in capsys.readouterr().out
    rows.append(made(replace(some(1)[0], config={"epochs": 3})))
    assert main(["rows", str(rows.path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4  # a mean over two settings would be a lie
    assert main(["rows", str(rows.path), "--csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_ctrl_c_is_exit_130_and_a_short_message(capsys, monkeypatch, tmp_path):
    import fewshot.grids

    def interrupted(*arguments, **options):
        raise fewshot.grids.Interrupted("interrupted: 1 of 2 runs are stored")

    monkeypatch.setattr(fewshot.grids, "complete", interrupted)
    assert main(["run", "--methods", "coop", "--datasets", "toy/pets", "--rows", str(tmp_path / "r.jsonl")]) == 130
    assert capsys.readouterr().err == "\nfewshot: interrupted: 1 of 2 runs are stored\n"


def test_module_and_command_start_workers_alike(tmp_path):
    """`python -m fewshot` hides its main module from spawned processes."""
    command = [sys.executable, "-m", "fewshot", "run", "--methods", "zero_shot", "--datasets", "toy/eurosat", "--shots", "1"]
    done = subprocess.run([*command, "--rows", str(tmp_path / "r.jsonl"), "--workers", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "zero_shot" in done.stdout


# The notebook launcher


@pytest.fixture
def book(tmp_path):
    cells = [
        nbformat.v4.new_code_cell("shots: list[int] = [1]\nfast: bool = False\nlr: float = 0.1\nname = 'x'"),
        nbformat.v4.new_code_cell("print(shots, fast, lr, name)\nassert lr < 1"),
    ]
    cells[0].metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "book.ipynb")
    return tmp_path / "book.ipynb"


def test_a_notebook_gets_typed_values(book, tmp_path):
    output = tmp_path / "out" / "b.ipynb"
    given = ["-p", "shots=[1, 4]", "-p", "fast=true", "-p", "lr=1e-3", "-p", "name=y", "-o", str(output)]
    assert main(["notebook", str(book), *given]) == 0
    assert nbformat.read(output, 4).cells[-1].outputs[0]["text"] == "[1, 4] True 0.001 y\n"


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("shot=4", "unknown parameter 'shot'; did you mean 'shots'?"),
        ("shots=four", "shots wants list[int], not 'four' (str)."),
        ("fast=1", "fast wants bool, not '1' (str)."),
        ("lr", "-p 'lr' is not name=value."),
    ],
)
def test_a_wrong_parameter_is_refused_before_the_notebook_starts(book, tmp_path, capsys, parameter, message):
    assert message in refused(capsys, "notebook", str(book), "-p", parameter, "-o", str(tmp_path / "out.ipynb"))
    assert not (tmp_path / "out.ipynb").exists()


def test_a_failing_notebook_is_one_line_and_keeps_its_copy(book, tmp_path, capsys):
    assert main(["notebook", str(book), "-p", "lr=2", "-o", str(tmp_path / "out.ipynb")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("fewshot: book.ipynb stopped in its cell") and "AssertionError" in last
    assert (tmp_path / "out.ipynb").exists()


def test_a_notebook_without_parameters_or_without_file_is_refused(book, tmp_path, capsys):
    notebook = nbformat.read(book, 4)
    notebook.cells[0].metadata["tags"] = []
    nbformat.write(notebook, tmp_path / "plain.ipynb")
    assert "has no cell with the tag 'parameters'" in refused(capsys, "notebook", str(tmp_path / "plain.ipynb"))
    assert "unknown notebook 'no_such_notebook'" in refused(capsys, "notebook", "no_such_notebook")


def test_an_annotation_that_is_no_plain_type_is_refused_and_never_evaluated(book, tmp_path, capsys):
    notebook = nbformat.read(book, 4)
    notebook.cells[0].source = "x: dict = {}"
    nbformat.write(notebook, tmp_path / "odd.ipynb")
    assert "annotates x with dict" in refused(capsys, "notebook", str(tmp_path / "odd.ipynb"), "-p", "x=2")


def test_a_file_that_is_no_notebook_or_names_no_kernel_is_refused(book, tmp_path, capsys):
    notebook = nbformat.read(book, 4)
    notebook.metadata = {}
    nbformat.write(notebook, tmp_path / "bare.ipynb")
    (tmp_path / "torn.ipynb").write_text('{"cells": [')
    for name in ("bare", "torn"):
        assert f"{name}.ipynb cannot be read as a notebook" in refused(capsys, "notebook", str(tmp_path / f"{name}.ipynb"))
