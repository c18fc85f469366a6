"""Files from strangers run nothing, names from strangers inject nothing, and the key is nowhere."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import traceback
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import yaml
from bs4 import BeautifulSoup
from chat_server import ChatServer, Reply, ten_lines
from test_report import frame

import fewshot
from fewshot import curves, look, report
from fewshot.__main__ import main
from fewshot.errors import FewshotError
from fewshot.rows import Rows
from fewshot.weights import read_state_dict

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(p for folder in ("fewshot", "book", "benchmarks") for p in (ROOT / folder).rglob("*.py"))
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


# ---- weights run nothing


class Ran:
    """Pickled, it makes a folder when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def archive(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, data in members.items():
            bundle.writestr(f"model/{name.replace('__', '.')}", data)


def malicious(kind: str, path: Path, ran: Path) -> Path:
    """A weight file that would make the folder `ran`."""
    path = path / {"safetensors": "w.safetensors"}.get(kind, "w.pt")
    if kind in ("plain pickle", "safetensors"):
        path.write_bytes(pickle.dumps({"a": Ran(ran)}))
    elif kind == "torch.save":
        torch.save({"a": torch.zeros(1), "b": Ran(ran)}, path)
    elif kind == "torch.save of old":
        torch.save({"a": Ran(ran)}, path, _use_new_zipfile_serialization=False)
    elif kind == "torchscript":
        archive(path, constants__pkl=b"", data__pkl=pickle.dumps(Ran(ran)))
    elif kind == "torchscript by name":  # what a class of the archive is called does not make it one
        archive(path, constants__pkl=b"", data__pkl=b"c__torch__.os\nmkdir\n(V" + str(ran).encode() + b"\ntR.")
    return path


KINDS = ("plain pickle", "torch.save", "torch.save of old", "torchscript", "torchscript by name", "safetensors")


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_file_that_would_run_something_is_refused_and_runs_nothing(kind, tmp_path):
    path = malicious(kind, tmp_path, tmp_path / "ran")
    for read in (read_state_dict, fewshot.load_clip, lambda p: fewshot.load_clip("ViT-B-16-quickgelu", str(p))):
        with pytest.raises(FewshotError) as caught:
            read(str(path))
        assert path.name in str(caught.value)
    with pytest.raises(FewshotError, match="damaged or not a method that fewshot saved"):
        fewshot.load_method(path, tiny.clip())
    assert not (tmp_path / "ran").exists()


def test_the_files_of_this_test_would_run_where_they_are_trusted(tmp_path):
    """So that the test above can fail."""
    path = malicious("torch.save", tmp_path, tmp_path / "ran")
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").is_dir()


def test_objects_in_a_checkpoint_are_refused_with_the_way_to_convert_it(tmp_path):
    with pytest.raises(FewshotError, match="convert it to .safetensors where you trust it"):
        read_state_dict(malicious("torch.save", tmp_path, tmp_path / "ran"))


# ---- no line of the project runs a text


CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads",
    "joblib.load", "shelve.open", "pd.read_pickle", "pandas.read_pickle", "yaml.unsafe_load", "yaml.full_load",
    "torch.jit.load", "torch.hub.load", "tempfile.mktemp", "subprocess.getoutput", "subprocess.getstatusoutput",
    "tar.extractall", "bundle.extractall", "zip.extractall",
}  # fmt: skip
UNPICKLER = {"fewshot/weights.py"}  # a subclass that looks up tensors and nothing else, tested above


def dangerous(tree: ast.AST) -> list[str]:
    """Calls that would run or trust what a file or a user says, as "line: call"."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [
                (node.lineno, name) for name in names if name.split(".")[0] in ("pickle", "marshal", "shelve", "dill")
            ]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        trusting = (
            name in CALLS
            or options.get("shell") == "True"
            or options.get("verify") == "False"
            or options.get("allow_pickle") == "True"
            or options.get("trust_remote_code") == "True"
            or (name == "torch.load" and options.get("weights_only") != "True")
            or (name in ("yaml.load", "yaml.load_all") and "SafeLoader" not in options.get("Loader", ""))
            or (name.endswith(".extract") and name.startswith("tar") and options.get("filter") != "'data'")
        )
        if trusting:
            found.append((node.lineno, name))
    return [f"{line}: {name}" for line, name in found]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_source_runs_a_text_or_trusts_a_file(path):
    found = dangerous(ast.parse(path.read_text(encoding="utf-8")))
    if path.relative_to(ROOT).as_posix() in UNPICKLER:
        found = [one for one in found if not one.endswith(": pickle")]
    assert not found


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_no_notebook_runs_a_text_or_trusts_a_file(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            assert not dangerous(ast.parse(cell.source)), cell.id


@pytest.mark.parametrize(
    "line",
    ["eval('1')", "exec(x)", "import pickle", "subprocess.run(x, shell=True)", "yaml.load(x)", "yaml.load(x, Loader=yaml.Loader)",
     "torch.load(x)", "torch.load(x, weights_only=False)", "np.load(x, allow_pickle=True)", "requests.get(x, verify=False)",
     "os.system(x)", "tar.extractall(x)", "tar.extract(x)", "from pickle import loads"],
)  # fmt: skip
def test_the_search_for_dangerous_calls_finds_them(line):
    assert dangerous(ast.parse(line))


@pytest.mark.parametrize(
    "line", ["model.eval()", "re.compile(x)", "yaml.load(x, Loader=yaml.CSafeLoader)", "yaml.safe_load(x)"]
)
def test_the_search_for_dangerous_calls_leaves_others_alone(line):
    assert not [one for one in dangerous(ast.parse(line)) if "compile" not in one]
    assert "re.compile" not in CALLS


# ---- names inject nothing

SCRIPT = "<script>alert(1)</script>"
NAMES = (SCRIPT, "$x$", r"$\href{javascript:alert(1)}{x}$", '"><img src=x onerror=alert(1)>', "'&lt;", "a</title>-->b")
TOY = tuple(f"toy/{name}" for name in NAMES)
ROWS = frame(
    *(("zero_shot", name, 0, 1, 50.0) for name in (*NAMES, *TOY)),
    *(("linear_probe", name, -1, 1, 90.0) for name in TOY),
    *((method, name, k, s, 60.0 + s) for method in ("coop", SCRIPT) for name in NAMES for k in (1, 4) for s in (1, 2)),
)
PUBLISHED = pd.DataFrame(
    [
        {"method": method, "variant": method, "dataset": name, "shots": k, "top1": 60.0, "classes": "all"}
        | {"source": SCRIPT if name != NAMES[1] else "clip_lora", "table": NAMES[3], "backbone": "ViT-B/16"}
        for method in ("zero_shot", "coop")
        for name in NAMES
        for k in ([0] if method == "zero_shot" else [1, 4])
    ]
)


def harmless(text: str) -> BeautifulSoup:
    """HTML of tables and links only, without a script, a picture, or an attribute that does something."""
    soup = BeautifulSoup(text, "html.parser")
    tags = {tag.name for tag in soup.find_all()}
    assert tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "small", "strong", "u", "wbr", "a"}, tags
    for tag in soup.find_all():
        assert set(tag.attrs) <= {"class", "scope", "style", "title", "href", "download"}, tag
        assert not str(tag.get("href", "")).startswith("javascript")
    assert all("mathjax_ignore" in table["class"] for table in soup.find_all("table"))
    return soup


class Result:
    predictions, labels, n, accuracy = np.array([0, 1, 0, 1, 2, 3]), np.array([0, 1, 1, 0, 3, 2]), 6, 33.3


def tables() -> dict:
    return {
        "method_table": lambda: report.method_table(ROWS, 4, ["coop", SCRIPT], NAMES),
        "published_table": lambda: report.published_table(PUBLISHED, 4),
        "wins": lambda: report.wins(ROWS, 4),
        "gains": lambda: report.gains(ROWS, 1, 4),
        "paper_here": lambda: report.paper_here(ROWS[ROWS["method"] != SCRIPT], PUBLISHED),
        "standing": lambda: report.standing(ROWS[ROWS["dataset"].isin(TOY)], dict.fromkeys(NAMES, 4), PUBLISHED),
        "status_table": lambda: report.status_table(ROWS.assign(profile=SCRIPT, hardware=NAMES[3])),
        "accuracy_table": lambda: look.accuracy_table({SCRIPT: Result, NAMES[1]: Result}),
        "confusions": lambda: report.Table(look.confusions(Result, NAMES)),
    }


@pytest.mark.parametrize("maker", tables())
def test_tables_show_names_and_nothing_of_what_they_say(maker):
    table = tables()[maker]()
    soup = harmless(table._repr_html_())
    text = soup.get_text()
    assert any(name in text for name in NAMES), "no name is shown, so nothing was tested"


def test_every_part_of_a_table_is_escaped():
    table = report.Table([[SCRIPT, NAMES[3] + " ± " + SCRIPT]], index=[SCRIPT], columns=[NAMES[1], NAMES[3]])
    table.index.name = table.caption = SCRIPT
    table.hints = {(SCRIPT, NAMES[1]): NAMES[3]}
    table.tints = {(SCRIPT, NAMES[1]): 0.5}
    soup = harmless(table.html())
    assert soup.caption.text == soup.tbody.th.text == soup.thead.th.text == SCRIPT
    assert soup.tbody.td["title"] == NAMES[3] and [th.text for th in soup.thead.find_all("th")][1:] == [
        NAMES[1],
        NAMES[3],
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_download_is_a_link_with_its_name_and_no_more(name):
    soup = harmless(report.download(pd.DataFrame({name: [name]}), name).data)
    assert soup.a["download"] == soup.a.text == name and soup.a["href"].startswith("data:text/csv;base64,")


def test_html_is_made_in_two_places_of_the_package_and_of_the_ledger():
    """What is not made by Table.html and download has to be tested here as well."""
    made = {
        p.relative_to(ROOT).as_posix()
        for p in SOURCES
        if re.search(r"\bHTML\(|def _repr_html_|<t[dhr][ >]", p.read_text())
    }
    assert {name for name in made if name.startswith("fewshot/")} == {"fewshot/report.py", "fewshot/ledger.py"}


def words(figure, tmp_path) -> list[str]:
    """Every text of a figure, which is drawn first: a formula that is none would stop it here."""
    report.save(figure, tmp_path / "f.svg")
    tree = ElementTree.parse(tmp_path / "f.svg")
    assert not [e for e in tree.iter() if str(e.tag).endswith("}script")]
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_figures_show_a_name_letter_by_letter(tmp_path):
    rows = ROWS[ROWS["dataset"].isin(NAMES) & (ROWS["method"] != SCRIPT)]
    shown = words(curves.shot_curves(rows), tmp_path)
    for name in NAMES:
        assert report.literal(name) in shown
    one = rows[rows["dataset"] == NAMES[2]]
    assert any(report.literal(NAMES[2]) in text for text in words(curves.family_curves(one), tmp_path))


def test_pictures_of_answers_and_confusions_show_names_letter_by_letter(tmp_path):
    picture = tiny.task().train.pil(0)
    shown = words(look.answer(picture, np.array([0.5, 0.2, 0.1, 0.1, 0.05, 0.05]), NAMES, top=6), tmp_path)
    assert {report.literal(name.replace("_", " ")) for name in NAMES} <= set(shown)
    shown = words(look.confusion_matrix(Result, NAMES), tmp_path)
    assert report.literal(NAMES[1]) in shown
    assert look.grid(tiny.task().train, [0, 1], titles=[r"$\bad$", SCRIPT]).data[:2] == b"\xff\xd8"


def test_a_folder_with_such_names_can_be_learned_and_shown(tmp_path):
    from test_bad_input import class_folders

    names = ("<script>alert(1)<", "$x$", "a&b")
    dataset = fewshot.from_folder(class_folders(tmp_path / "<b>$x$", names))
    model = fewshot.fit("zero_shot", tiny.clip(), dataset.without_support())
    result = fewshot.evaluate(model, dataset.test)
    harmless(look.accuracy_table({dataset.name: result}).html())
    assert {report.literal(n) for n in names} <= set(words(look.confusion_matrix(result, dataset.classnames), tmp_path))


# ---- the key

KEY = "sk-planted-in-the-environment-0123456789"
ANSWERS = {
    "good": [],
    "the key in the answer": [Reply(f"{ten_lines(1)}\nYour key is {KEY}")],
    "refused": [Reply(status=401, error={"message": f"bad key {KEY}", "code": None})] * 9,
    "forbidden": [Reply(status=403, error={"message": f"{KEY} may not", "code": None})] * 9,
    "no such model": [Reply(status=404, error={"message": f"no model for {KEY}", "code": None})] * 9,
    "no JSON": [Reply(body=f"<html>{KEY}".encode())] * 9,
    "another shape": [Reply(body=json.dumps({"key": KEY}).encode())] * 9,
    "empty": [Reply("")] * 9,
}


@pytest.mark.parametrize("case", ANSWERS)
def test_the_key_is_in_no_output_no_file_and_no_traceback(case, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_LOG", "debug")
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("heron\n")
    seen = []
    monkeypatch.setattr("fewshot.__main__.FewshotError.__init__", watching(seen))
    server = ChatServer(*ANSWERS[case])
    try:
        ask = f"texts generate --classes names.txt --model m --calls 1 -o out.json --base-url {server.url}"
        code = main(ask.split())
    finally:
        server.close()
    assert code == (0 if case in ("good", "the key in the answer") else 2)
    assert server.keys and set(server.keys) == {f"Bearer {KEY}"}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes() or KEY in path.name]
    assert KEY not in "".join(capfd.readouterr()) and not [text for text in seen if KEY in text]


def watching(seen: list[str]):
    plain = FewshotError.__init__

    def init(self, message=""):
        plain(self, message)
        seen.append("".join(traceback.format_exception(self)) + "".join(traceback.format_stack()))

    return init


def test_the_key_is_in_no_row_and_in_no_kept_traceback(tmp_path, monkeypatch, capfd):
    from test_runs import made, shared, some

    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def run_one(one):
        if one.seed == 2:
            raise RuntimeError("no")
        return made(one) | {"versions": fewshot.runs.versions(), "hardware": fewshot.runs.hardware()}

    with pytest.raises(FewshotError, match="1 of 3 runs failed"):
        shared(some(3), tmp_path / "r.jsonl", run_one)
    assert len(Rows(tmp_path / "r.jsonl")) == 2 and list(tmp_path.rglob("*.txt"))
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert KEY not in "".join(capfd.readouterr())


def test_a_notebook_with_untrusted_names_and_a_key_around_it_renders_without_either(tmp_path, monkeypatch, capfd):
    """Executed by the command, and made a page as the book makes it."""
    from sphinx.application import Sphinx
    from test_bad_input import class_folders

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    names = ("<script>alert(1)<", "<img src=x onerror=alert(1)>", "$x$")  # a folder's name holds no slash
    class_folders(tmp_path / "photos", names)
    cells = [
        'folder: str = ""',
        "import pandas as pd\nimport fewshot\nfrom fewshot.report import Table, download",
        "dataset = fewshot.from_folder(folder, val=0)\ndataset.classnames",
        "print(*dataset.classnames)",
        "Table([[name] for name in dataset.classnames], index=list(dataset.classnames), columns=[dataset.classnames[0]])",
        "pd.DataFrame({name: [name] for name in dataset.classnames})",
        "download(pd.DataFrame({'x': dataset.classnames}), dataset.classnames[1])",
        "fewshot.load_dataset(dataset.classnames[0])",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    book.cells[0].metadata["tags"] = ["parameters"]
    book.cells.insert(0, nbformat.v4.new_markdown_cell("# Names"))
    book.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    (tmp_path / "page").mkdir()
    nbformat.write(book, tmp_path / "book.ipynb")
    out = tmp_path / "page" / "index.ipynb"
    code = main(["notebook", str(tmp_path / "book.ipynb"), "-p", f"folder={tmp_path / 'photos'}", "-o", str(out)])
    assert code == 2 and "unknown data set" in capfd.readouterr().err  # the last cell is a mistake; its answer is shown too
    settings = {"extensions": ["myst_nb"], "nb_execution_mode": "off"}
    Sphinx(tmp_path / "page", None, tmp_path / "html", tmp_path / "trees", "html", settings, status=None, warning=None).build()
    page = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    soup = BeautifulSoup(page, "html.parser")
    shown = soup.find(attrs={"role": "main"}) or soup.body
    assert all(shown.get_text().count(name) >= 4 for name in names[:2]), "no name is shown, so nothing was tested"
    assert not [tag for tag in soup.find_all("script") if "alert" in tag.text]
    assert not [tag for tag in soup.find_all() if any(name.startswith("on") for name in tag.attrs)]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


# ---- what stands around


def test_workflows_may_only_read_and_run_no_text_of_strangers():
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = file.read_text()
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {"contents": "read"}, file.name
        assert "pull_request_target" not in text and "secrets." not in text, file.name
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                assert "${{ github." not in step.get("run", ""), f"{file.name}: a title could be a command"
                assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1")), step


def test_the_pins_are_audited_by_a_pinned_tool():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    commands = " ".join(step.get("run", "") for step in workflow["jobs"]["audit"]["steps"])
    assert re.search(r"pip-audit==\d", commands) and "-r requirements.lock" in commands


def test_the_security_page_says_where_to_report_and_what_is_code():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for words in ("security/advisories/new", "Supported versions", "notebook", "safetensors", "archive", "key"):
        assert words in text
