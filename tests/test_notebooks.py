"""Every notebook of the book can be parameterised, checked and read in a diff.

Each rule is a function from a notebook to its faults; every rule is also shown to find a planted fault.
"""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
LONGEST = 25  # lines


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(cell, tag: str) -> bool:
    return tag in cell.metadata.get("tags", ())


def tree(cell) -> ast.Module:
    return ast.parse(re.sub(r"^[%!].*$", "", cell.source, flags=re.M))


def parameters(notebook):
    """Exactly one cell tagged `parameters`, the first code cell, annotated; the guard comes right after it."""
    cells = code(notebook)
    marked = [cell for cell in cells if tagged(cell, "parameters")]
    if len(marked) != 1 or cells[0] is not marked[0]:
        yield "the first code cell, and no other, is tagged `parameters`"
        return
    if not all(isinstance(line, ast.AnnAssign) for line in tree(marked[0]).body):
        yield "every parameter is written `name: type = default`"
    if len(cells) < 2 or "settings(globals()" not in cells[1].source:
        yield "the second code cell checks the parameters with settings(globals(), ...)"


def identifiers(notebook):
    """Ids are chosen by hand (`draw-the-curves`), because random ones make every diff unreadable."""
    ids = [cell.id for cell in notebook.cells]
    if len(ids) != len(set(ids)):
        yield "two cells have one id"
    for name in ids:
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or re.fullmatch(r"[0-9a-f]{8}", name) or len(name) < 3:
            yield f"the id {name!r} is not readable"


def outputs(notebook):
    """Nothing is stored but small outputs that are kept and checked; nbval passes a checked cell that was never run."""
    for cell in code(notebook):
        keep, checked = tagged(cell, "keep_output"), tagged(cell, "nbval-check-output")
        if cell.outputs and not keep:
            yield f"{cell.id} stores an output; run `make strip`"
        if keep != checked:
            yield f"{cell.id} needs both tags, keep_output and nbval-check-output, or neither"
        if checked and (cell.execution_count is None or not cell.outputs):
            yield f"{cell.id} is to be checked but stores no output or no execution count"
        if len(str(cell.outputs)) > 20_000:
            yield f"{cell.id} stores a large output"


def ideas_live_in_the_package(notebook):
    """A page shows and explains; classes and training loops are tested code of the package."""
    for cell in code(notebook):
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.ClassDef):
                yield f"{cell.id} defines the class {node.name}"
            if isinstance(node, ast.For | ast.While) and re.search(r"\.(backward|step)\(", ast.unparse(node)):
                yield f"{cell.id} holds a training loop"


def short_cells(notebook):
    for cell in code(notebook):
        if len(cell.source.splitlines()) > LONGEST:
            yield f"{cell.id} has {len(cell.source.splitlines())} lines, at most {LONGEST} can be read at a glance"


def numbers_of_figures(notebook):
    """Whoever sees a figure can take its numbers along: a page that draws some offers files of them below."""
    drawn = [place for place, cell in enumerate(notebook.cells) if re.match("draw-(?!the-task$)", cell.id)]
    offered = [place for place, cell in enumerate(notebook.cells) if "report.download(" in cell.source]
    for place in drawn:
        if place > max(offered, default=-1):
            yield f"no file below {notebook.cells[place].id} holds its numbers; offer one with report.download"


def kernel(notebook):
    """A named conda kernel exists on one machine only."""
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not called python3"


RULES = [parameters, identifiers, outputs, ideas_live_in_the_package, short_cells, numbers_of_figures, kernel]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_rule(path, rule):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert list(rule(notebook)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stripped_with_the_options_of_make_strip(path):
    options = re.search(r"^STRIP := nbstripout (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1)
    command = [sys.executable, "-m", "nbstripout", "--verify", *shlex.split(options), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"run `make strip`\n{done.stdout}"


def cell(source: str, name: str = "a-cell", *tags: str, **fields):
    return new_code_cell(source, id=name, metadata={"tags": list(tags)}, **fields)


def ran(text: str) -> dict:
    return {"execution_count": 3, "outputs": [new_output("stream", text=text)]}


GUARD = cell("cfg = settings(globals(), shots=(1, 4))", "guard")


def notebook_of(*cells):
    first = cell("shots: int = 4", "parameters", "parameters")
    return new_notebook(cells=[first, GUARD, *cells], metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def test_a_sound_notebook_breaks_no_rule():
    kept = cell("1 + 1", "kept", "keep_output", "nbval-check-output", **ran("2"))
    notebook = notebook_of(new_markdown_cell("Two.", id="why-two"), kept)
    assert [fault for rule in RULES for fault in rule(notebook)] == []


def with_one_id_twice():
    notebook = notebook_of(cell("1", "one"))
    notebook.cells[-1].id = notebook.cells[0].id
    return notebook


PLANTED = {
    "no parameters cell": (parameters, new_notebook(cells=[cell("x = 1")])),
    "two parameters cells": (parameters, notebook_of(cell("seed: int = 1", "more", "parameters"))),
    "unannotated parameter": (parameters, new_notebook(cells=[cell("shots = 4", "p", "parameters"), GUARD])),
    "no guard": (parameters, new_notebook(cells=[cell("shots: int = 4", "p", "parameters"), cell("print(shots)")])),
    "random id": (identifiers, notebook_of(cell("1", "deadbeef"))),
    "repeated id": (identifiers, with_one_id_twice()),
    "stored output": (outputs, notebook_of(cell("1", **ran("1")))),
    "checked but never run": (outputs, notebook_of(cell("1", "a-check", "keep_output", "nbval-check-output"))),
    "kept but not checked": (outputs, notebook_of(cell("1", "kept", "keep_output"))),
    "class in a cell": (ideas_live_in_the_package, notebook_of(cell("class Adapter:\n    pass"))),
    "training loop": (ideas_live_in_the_package, notebook_of(cell("for x in xs:\n    loss(x).backward()"))),
    "long cell": (short_cells, notebook_of(cell("x = 1\n" * (LONGEST + 1)))),
    "figure without its numbers": (numbers_of_figures, notebook_of(cell("curves(frame)", "draw-the-curves"))),
    "conda kernel": (kernel, new_notebook(metadata={"kernelspec": {"name": "conda-env-mine", "display_name": "mine"}})),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_rule_finds_a_planted_fault(planted):
    rule, notebook = PLANTED[planted]
    assert list(rule(notebook))


def test_stripping_keeps_checked_outputs_ids_and_tags(tmp_path):
    kept = cell("1", "kept", "keep_output", "nbval-check-output", **ran("1"))
    notebook = notebook_of(kept, cell("2", "dropped", **ran("2")))
    notebook.cells[0].metadata["papermill"] = {"duration": 1.0}
    path = tmp_path / "x.ipynb"
    nbformat.write(notebook, path)
    options = re.search(r"^STRIP := nbstripout (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1)
    subprocess.run([sys.executable, "-m", "nbstripout", *shlex.split(options), str(path)], check=True)
    stripped = nbformat.read(path, as_version=4)
    assert [cell.id for cell in stripped.cells] == ["parameters", "guard", "kept", "dropped"]
    assert [len(cell.outputs) for cell in stripped.cells] == [0, 0, 1, 0]
    assert stripped.cells[0].metadata == {"tags": ["parameters"]}
    assert stripped.cells[2].execution_count == 3
