"""The book's scripts: notebooks run only when stale, faults of a page are found, the finished book works in a browser."""

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import build
import check
import execute
import nbformat
import pytest
import status
import yaml
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "_build" / "html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
WORDS = "A sentence of a page that somebody wrote for a reader who wants to know. " * 3


# -- pages: every kind of fault is found ------------------------------------------------------------------------------


def page(folder: Path, body: str, name: str = "page.html") -> Path:
    path = folder / name
    path.write_text(f"<html><body><article class='bd-article'>{body}</article></body></html>", encoding="utf-8")
    return path


def output(inside: str) -> str:
    return f"<p>{WORDS}</p><div class='cell_output'>{inside}</div>"


def test_a_sound_page_has_no_fault(tmp_path):
    (tmp_path / "curve.svg").write_text("<svg/>")
    table = "<table><tr><th>CoOp</th><td>61.2</td><td>not run</td></tr></table>"
    table += "<table><tr><td>kills</td><td>50</td></tr><tr><td>full disks</td><td>not run</td></tr></table>"
    maths = "<span class='math'>\\(x^2\\)</span><pre>cost = '$$' # {glue:text}`x`</pre>"
    path = page(tmp_path, f"<h1 id='top'>T</h1><p>{WORDS}</p>{table}{maths}<img src='curve.svg'><a href='#top'>up</a>")
    assert list(check.page_faults("book/x", path)) == [] and list(check.target_faults(path)) == []


PLANTED = {
    "is empty": "<h1>Only a title</h1>",
    "a table in which nothing was run": f"<p>{WORDS}</p><table><tr><td>CoOp</td><td>16</td><td>not run</td></tr></table>",
    "a table without a cell": f"<p>{WORDS}</p><table><thead><tr><th>Method</th></tr></thead></table>",
    "shows a traceback": output("<pre>Traceback (most recent call last)\nNameError</pre>"),
    "shows raw TeX: '$$'": f"<p>{WORDS} $$ x^2 $$</p>",
    "shows raw TeX: '$\\\\alpha": f"<p>{WORDS} $\\alpha = 1$</p>",
    "shows something unresolved: '{glue:": f"<p>{WORDS} {{glue:text}}`best`</p>",
    "shows something unresolved: '<Figure size'": f"<p>{WORDS} &lt;Figure size 640x480&gt;</p>",
    "shows an unformatted result: 'np.float64('": output("<pre>np.float64(70.1)</pre>"),
    "shows a path of this machine": output("<pre>/tmp/ipykernel_123/1.py: UserWarning</pre>"),
    "needs the network": f"<p>{WORDS}</p><img src='https://example.org/x.png'>",
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_fault_is_found(fault, tmp_path):
    found = list(check.page_faults("book/x", page(tmp_path, PLANTED[fault])))
    assert len(found) == 1 and fault in found[0], found


@pytest.mark.parametrize("inside", ["<img src='lost.png'>", "<a href='lost.html'>x</a>", "<a href='#lost'>x</a>"])
def test_image_or_link_without_a_target_is_found(inside, tmp_path):
    assert len(list(check.target_faults(page(tmp_path, inside)))) == 1


def test_page_must_show_the_tables_and_figures_its_notebook_printed(tmp_path):
    shown = [new_output("display_data", data={"text/html": "<table><tr><td>1</td></tr></table>"})]
    drawn = [new_output("display_data", data={"image/svg+xml": "<svg/>"})]
    hidden = new_code_cell("3", outputs=drawn, metadata={"tags": ["remove-cell"]})
    path = tmp_path / "x.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1", outputs=shown), new_code_cell("2", outputs=drawn), hidden]), path)
    lost = list(check.page_faults("notebooks/x", page(tmp_path, f"<p>{WORDS}</p>"), path))
    assert lost == ["should show 1 table, shows 0", "should show 1 img, shows 0"]


def test_page_that_must_show_a_table_is_found_without_one(tmp_path):
    assert list(check.page_faults("book/status", page(tmp_path, f"<p>{WORDS}</p>"))) == ["should show 1 table, shows 0"]


def test_pages_that_must_show_something_are_pages_of_the_book():
    listed = check.toc_pages(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    assert set(check.MUST_SHOW) <= set(listed)


def test_table_of_contents_is_read_with_parts_and_sections():
    toc = {"root": "a", "parts": [{"caption": "P", "chapters": [{"file": "b", "sections": [{"file": "c"}]}, {"file": "d"}]}]}
    assert check.toc_pages(toc) == ["a", "b", "c", "d"]


# -- notebooks: run when stale, and only then -------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A tiny book of one page and one notebook."""
    monkeypatch.delenv("FEWSHOT_RESULTS", raising=False)
    for folder in ("notebooks", "fewshot", "results", "book/_static"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "fewshot" / "code.py").write_text("x = 1\n")
    write_notebook(tmp_path, "import pathlib\nprint('six is', 6, pathlib.Path.cwd().name)")
    settings = {"title": "T", "only_build_toc_files": True, "execute": {"execute_notebooks": "off"}}
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(settings))
    (tmp_path / "_toc.yml").write_text("{format: jb-book, root: book/intro, chapters: [{file: notebooks/one}]}")
    (tmp_path / "book" / "intro.md").write_text(f"# Title\n\n{WORDS}\n")
    return tmp_path


def write_notebook(root: Path, source: str) -> None:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    cells = [nbformat.v4.new_markdown_cell(f"# One\n\n{WORDS}"), new_code_cell(source)]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), root / "notebooks" / "one.ipynb")


def test_notebook_runs_again_only_when_something_it_reads_has_changed(project):
    stage, said = project / "stage", []
    timings = execute.execute(project, stage, said.append)
    executed = nbformat.read(stage / "notebooks" / "one.ipynb", as_version=4)
    assert executed.cells[1].outputs[0].text == "six is 6 notebooks\n"  # the working directory is the notebook's folder
    assert timings["notebooks"]["one"]["seconds"] > 0
    assert not [cell for cell in (executed, *executed.cells) if "papermill" in cell.metadata]

    assert execute.execute(project, stage, said.append) == timings
    assert "up to date" in said[-1]

    (project / "results" / "toy.jsonl").write_text("{}\n")
    assert execute.execute(project, stage, said.append) != timings
    assert said[-1].startswith("  one: done")


@pytest.mark.parametrize("changed", ["fewshot/code.py", "notebooks/one.ipynb", "results/x.jsonl", "profiles/toy.yaml"])
def test_every_input_of_a_notebook_changes_its_key(project, changed, monkeypatch):
    ran = []
    monkeypatch.setattr(execute, "run", lambda source, target: ran.append(target.write_text("{}")) or 1.0)
    execute.execute(project, project / "stage", say=lambda line: None)
    execute.execute(project, project / "stage", say=lambda line: None)
    assert len(ran) == 1
    (project / changed).parent.mkdir(exist_ok=True)
    with (project / changed).open("a") as file:
        file.write("\n")
    execute.execute(project, project / "stage", say=lambda line: None)
    assert len(ran) == 2


def test_failing_notebook_stops_with_the_end_of_its_log_and_leaves_nothing(project):
    write_notebook(project, "raise KeyError('no such shots')")
    with pytest.raises(execute.NotebookFailed, match="(?s)one.ipynb failed.*KeyError: 'no such shots'") as caught:
        execute.execute(project, project / "stage", say=lambda line: None)
    assert "one.log" in str(caught.value)
    assert not (project / "stage" / "notebooks" / "one.ipynb").exists()


# -- the build --------------------------------------------------------------------------------------------------------


def test_book_is_built_once_and_a_broken_one_leaves_the_last_good_one_in_place(project):
    stage, finished, said = project / "_build" / "stage", project / "_build" / "html", []
    assert build.build(project, stage, finished, said.append) == []
    assert "six is 6" in (finished / "notebooks" / "one.html").read_text()
    assert not (finished / "_sources" / "notebooks" / "one.log").exists()

    assert build.build(project, stage, finished, said.append) == []
    assert said[-1] == "book: up to date"

    (project / "book" / "intro.md").write_text(f"# Title\n\n{WORDS} {{ref}}`nowhere`\n")
    assert build.build(project, stage, finished, said.append) != []
    assert build.build(project, stage, finished, said.append) != []  # still broken, although nothing changed
    assert WORDS[:20] in (finished / "book" / "intro.html").read_text()


def test_status_tables_name_every_notebook_and_every_file_of_rows(tmp_path):
    assert status.rows_tables(tmp_path) == "None yet.\n"
    row = {"experiment": "x", "method": "coop", "dataset": "toy/pets", "shots": 4, "profile": "toy", "backbone": "toy"}
    row |= {"pretrained": None, "accuracy": 61.5, "n_test": 100, "seconds_fit": 2.5, "seconds_evaluate": 0.5}
    row |= {"parameters": 8192, "peak_memory_mb": 100.0, "hardware": "a CPU", "versions": {"torch": "2.12.1"}}
    row |= {"finished": "2026-01-02T03:04:05+00:00"}
    lines = [json.dumps(row | {"seed": seed, "key": f"k{seed}"}) for seed in (1, 2, 3)]
    (tmp_path / "method_table-toy.jsonl").write_text("\n".join(lines) + "\n")
    tables = status.rows_tables(tmp_path)
    assert "### `method_table-toy.jsonl`" in tables and "CoOp" in tables and "<td>3</td>" in tables and "a CPU" in tables
    assert "The toy rows took 0 minutes of computing, 0 when two cores share them: within the 120 minutes" in tables
    slow = [json.dumps(row | {"seed": seed, "key": f"k{seed}", "seconds_fit": 1e4}) for seed in (1, 2)]
    (tmp_path / "method_table-toy.jsonl").write_text("\n".join(slow) + "\n")
    assert "took 333 minutes of computing, 167 when two cores share them: **more than** the" in status.rows_tables(tmp_path)
    said = status.fresh_text(tmp_path)
    assert "took 5.6 hours" in said and "that is 2.8 hours: within the night of 10 hours" in said
    (tmp_path / "training_time-toy.jsonl").write_text("\n".join(slow) + "\n")
    assert "took 11.1 hours" in status.fresh_text(tmp_path) and "that is 8.3 hours" in status.fresh_text(tmp_path)
    (tmp_path / "training_time-toy.jsonl").write_text(slow[0].replace("10000.0", "40000.0") + "\n")
    assert "13.9 hours: **more than** the night" in status.fresh_text(tmp_path)
    timings = {"notebooks": {"one": {"seconds": 12.4, "finished": "2026-01-02T03:04:05+00:00"}}}
    assert "| {doc}`../notebooks/one` | 12 | 2026-01-02 03:04 |" in status.notebook_table(timings)
    assert "| all pages, the last time | 31 |" in status.notebook_table(timings | {"book": {"seconds": 31.2}})


# -- measuring again --------------------------------------------------------------------------------------------------


def test_fresh_measures_the_toy_rows_again_and_takes_the_others_as_they_are(tmp_path, monkeypatch):
    import fresh

    from fewshot import grids, runs
    from fewshot.rows import Rows

    committed, folder, said = tmp_path / "results", tmp_path / "fresh", []
    committed.mkdir()
    stored = Rows(committed / "table.jsonl")
    for backbone, dataset in (("toy", "toy/pets"), ("ViT-B-16-quickgelu", "oxford_pets")):
        one = runs.Run("x", "coop", dataset, 4, backbone=backbone)
        result = {"key": one.key, "overrides": {}, "selection_asked": None, "accuracy": 60.0}
        stored.append({name: value for name, value in asdict(one).items() if name != "config"} | result)

    def measure_again(todo, rows, executor, run_one):
        for one in todo:
            rows.append(stored.get(one.key) | {"accuracy": 61.5})

    monkeypatch.setattr(grids, "run_grid", measure_again)
    for name in ("FEWSHOT_CACHE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # so that what `measure` sets is undone
    results = fresh.measure(committed, folder, said.append)
    measured = Rows(results / "table.jsonl").frame().set_index("backbone")["accuracy"]
    assert measured.to_dict() == {"toy": 61.5, "ViT-B-16-quickgelu": 60.0}
    assert "1 rows to measure, 1 taken" in said[0] and "1.50 points" in said[1]
    assert not (folder / "unfinished").exists()


# -- in a browser -----------------------------------------------------------------------------------------------------


def browse(path: Path, profile: Path, width: int = 1280) -> str:
    """The page's DOM after its scripts ran, as an offline reader's browser has it."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [f"--user-data-dir={profile}", f"--window-size={width},900", "--virtual-time-budget=20000", "--dump-dom"]
    return subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120).stdout


@needs_browser
def test_clicking_a_heading_sorts_the_table_and_a_second_click_reverses_it(tmp_path):
    shutil.copy(ROOT / "book" / "_static" / "sortable.js", tmp_path)
    rows = "".join(f"<tr><td>{m}</td><td>{v}</td></tr>" for m, v in (("b", "9.5 ± 0.1"), ("c", "not run"), ("a", "71.2")))
    table = f"<table class='sortable'><thead><tr><th>M</th><th>Top-1</th></tr></thead><tbody>{rows}</tbody></table>"
    script = """<script>addEventListener("load", () => {
      const order = () => [...document.querySelectorAll("tbody tr")].map((row) => row.cells[0].textContent).join("");
      const [method, top1] = document.querySelectorAll("th"), seen = [];
      for (const heading of [method, method, top1, top1]) { heading.click(); seen.push(order()); }
      document.body.dataset.seen = seen;
    });</script>"""
    (tmp_path / "t.html").write_text(f"<html><body>{table}<script src='sortable.js'></script>{script}</body></html>")
    assert 'data-seen="abc,cba,bac,abc"' in browse(tmp_path / "t.html", tmp_path / "profile")


PROBE = """<script>
const wrong = [];
addEventListener("error", (event) => {
  if (event.target?.rel !== "preload") wrong.push(String(event.message || event.target.src || event.target.href));
}, true);
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const count = (selector) => document.querySelectorAll(selector).length;
  const broken = [...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.getAttribute("src"));
  const wide = Math.max(0, document.documentElement.scrollWidth - innerWidth);
  const [maths, drawn, errors] = [".math", ".math mjx-container", "[data-mjx-error]"].map(count);
  const found = {wrong, broken, wide, maths, drawn, errors};
  document.documentElement.dataset.probe = JSON.stringify(found);
});
</script>"""


def finished_pages() -> list[str]:
    return check.toc_pages(yaml.safe_load((ROOT / "_toc.yml").read_text()))


@pytest.mark.book
@needs_browser
@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("name", finished_pages())
def test_page_works_offline_in_a_browser(name, width, tmp_path):
    """Scripts run, every equation is drawn, every picture appears, and nothing sticks out at the side."""
    if not (BOOK / f"{name}.html").exists():
        pytest.skip("the book is not built; run `make book`")
    copy = tmp_path / "html"
    shutil.copytree(BOOK, copy, copy_function=os.symlink)  # the page gets a probe, around it is the book itself
    path = copy / f"{name}.html"
    page = path.read_text(encoding="utf-8").replace("<head>", "<head>" + PROBE, 1)
    path.unlink()
    path.write_text(page, encoding="utf-8")

    probe = re.search(r'data-probe="([^"]*)"', browse(path, tmp_path / "profile", width))
    assert probe, "the page never finished loading"
    found = json.loads(html.unescape(probe.group(1)))
    # Jupyter Book writes the settings of live code, which this book does not offer, twice into every page
    found["wrong"] = [said for said in found["wrong"] if "'THEBE_JS_URL' has already been declared" not in said]
    assert found["wrong"] == [] and found["broken"] == [] and found["errors"] == 0
    assert found["drawn"] == found["maths"]
    assert found["wide"] <= 1


@pytest.mark.book
def test_finished_book_has_no_fault():
    if not (BOOK / "index.html").exists():
        pytest.skip("the book is not built; run `make book`")
    found = [name for name in finished_pages() if not (BOOK / f"{name}.html").exists()]
    for name in finished_pages():
        found += [f"{name}: {fault}" for fault in check.page_faults(name, BOOK / f"{name}.html")]
        found += [f"{name}: {fault}" for fault in check.target_faults(BOOK / f"{name}.html")]
    assert found == []
