"""A wrong notebook parameter stops the notebook in its second cell with one sentence."""

from __future__ import annotations

import math
import sys
from typing import Optional

import nbformat
import papermill
import pytest

from fewshot.errors import FewshotError
from fewshot.parameters import settings

METHODS = {"coop": "module:CoOp", "clip_lora": "module:CLIPLoRA"}


def scope(values: dict, **annotations) -> dict:
    ipython = {
        "In": ["", "x = 1"],
        "Out": {},
        "exit": object(),
        "quit": object(),
        "_": 3,
        "_i1": "x",
        "get_ipython": print,
    }
    return ipython | {"math": math, "settings": settings, "METHODS": METHODS, "__annotations__": annotations} | values


def check(kind, value, **choices):
    return settings(scope({"x": value}, x=kind), **choices).x


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, 4, 4),
        (int, "4", 4),
        (float, 1, 1.0),
        (float, "1e-3", 0.001),
        (float, "0.5", 0.5),
        (str, "4", "4"),
        (bool, "true", True),
        (bool, "false", False),
        (list[int], "[1, 4]", [1, 4]),
        (list[int], 4, [4]),
        (list[int], "4", [4]),
        (list[int], (1, 2), [1, 2]),
        (list[float], [1, 0.5], [1.0, 0.5]),
        (list[str], "coop", ["coop"]),
        (list[str], "[coop, clip_lora]", ["coop", "clip_lora"]),
        (list[str], "yes", ["yes"]),
        (str | None, None, None),
        (str | None, "None", None),
        (str | None, "openai", "openai"),
        (Optional[int], "3", 3),  # noqa: UP045 (people write it)
        ("list[int]", "[2]", [2]),
        (list[int] | None, None, None),
    ],
)
def test_values_arrive_in_the_annotated_type(kind, value, expected):
    found = check(kind, value)
    assert found == expected and type(found) is type(expected)
    if isinstance(expected, list):
        assert [type(v) for v in found] == [type(v) for v in expected]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, True),
        (int, 4.0),
        (int, "four"),
        (int, None),
        (float, True),
        (float, "fast"),
        (str, 4),
        (bool, 1),
        (bool, "maybe"),
        (list[int], [1, True]),
        (list[int], "[1, a]"),
        (list[str], [1]),
        (list[int], None),
        (list[int], {"a": 1}),
    ],
)
def test_a_wrong_type_names_parameter_value_and_wish(kind, value):
    with pytest.raises(FewshotError, match=r"^x wants "):
        check(kind, value)


def test_an_unknown_parameter_is_named_with_the_nearest_one():
    with pytest.raises(FewshotError, match="unknown parameter 'shot'; did you mean 'shots'?"):
        settings(scope({"shots": 4, "shot": 8}, shots=int))
    with pytest.raises(FewshotError, match="did you mean 'shots'?"):
        settings(scope({"shots": 4, "SHOTS": 8}, shots=int))
    with pytest.raises(FewshotError, match="unknown parameter 'method'; did you mean 'methods'?"):
        settings(scope({"methods": ["coop"]}, methods=list[str]), method=METHODS)


def test_imports_constants_and_ipythons_own_names_are_no_parameters():
    assert vars(settings(scope({"shots": 4, "PALETTE": ["red"]}, shots=int))) == {"shots": 4}
    assert vars(settings(scope({"m": "coop", "known": METHODS}, m=str), m=METHODS)) == {"m": "coop"}


def test_choices_apply_to_values_and_to_the_elements_of_lists():
    assert check(list[str], "coop", x=METHODS) == ["coop"]
    assert check(str | None, None, x=METHODS) is None
    assert check(list[int], [1, 4], x=(1, 2, 4)) == [1, 4]
    with pytest.raises(FewshotError, match="unknown method 'copp'; did you mean 'coop'?"):
        settings(scope({"methods": ["coop", "copp"]}, methods=list[str]), methods=METHODS)
    with pytest.raises(FewshotError, match="x: 3 is not one of 1, 2, 4"):
        check(list[int], [1, 3], x=(1, 2, 4))
    with pytest.raises(FewshotError, match="x is empty; choose from coop, clip_lora"):
        check(list[str], [], x=METHODS)


def test_a_parameter_without_value_or_with_a_strange_annotation_is_refused():
    with pytest.raises(FewshotError, match="'x' has no value"):
        settings(scope({}, x=int))
    with pytest.raises(FewshotError, match="'x' is annotated dict"):
        check(dict, {})
    with pytest.raises(FewshotError, match="no annotated parameter"):
        settings({"shots": 4})


def notebook(path):
    cells = [
        "import sys\nfrom fewshot.parameters import settings",
        "shots: list[int] = [1]  # images per class\nlr: float = 0.1\nfast: bool = False",
        "cfg = settings(globals(), shots=(1, 2, 4))\nprint(cfg)",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    book.cells[1].metadata["tags"] = ["parameters"]
    book.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(book, path)
    return str(path)


def run(tmp_path, **parameters) -> str:
    source, output = notebook(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb")
    papermill.execute_notebook(source, output, parameters, kernel_name="python3", progress_bar=False)
    return nbformat.read(output, 4).cells[-1].outputs[0]["text"]


def test_papermill_passes_text_and_the_notebook_sees_lists_and_booleans(tmp_path):
    assert run(tmp_path, shots="[1, 4]", fast="true", lr="1e-3") == "namespace(shots=[1, 4], lr=0.001, fast=True)\n"


def test_a_misspelt_papermill_parameter_fails_in_one_sentence_without_traceback(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        run(tmp_path, shot=4)
    assert "unknown parameter 'shot'; did you mean 'shots'?" in str(caught.value)
    shown = next(
        o
        for c in nbformat.read(tmp_path / "out.ipynb", 4).cells
        for o in c.get("outputs", [])
        if o.output_type == "error"
    )
    assert shown.traceback == ["FewshotError: unknown parameter 'shot'; did you mean 'shots'?"]


def test_reading_settings_imports_no_torch():
    import subprocess

    code = "import sys, fewshot.parameters, fewshot.rows, fewshot.runs, fewshot.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
