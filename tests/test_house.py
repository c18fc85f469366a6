"""The files around the package agree with each other and with what is really there."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
BIG = {"book/_static/tex-svg.js", "tests/fixtures/clip.safetensors"}  # besides the toy weights all that is over 1 MB
TEXT = {".cff", ".css", ".csv", ".ipynb", ".js", ".json", ".jsonl", ".lock", ".md", ".py", ".toml", ".yaml", ".yml", ""}


def tracked() -> list[str]:
    """The files of the project: tracked, or new and not ignored."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [name for name in sorted(set(listed.splitlines())) if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def named(requirements: list[str]) -> dict[str, SpecifierSet]:
    return {canonicalize_name(r.name): r.specifier for r in map(Requirement, requirements)}


def pins() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


# -- one set of dependencies, three files ------------------------------------------------------------------------------


def test_conda_environment_asks_for_the_same_packages_as_pyproject(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = named([entry for entry in environment if isinstance(entry, str)])
    (pip,) = [entry["pip"] for entry in environment if isinstance(entry, dict)]
    assert conda["python"] == SpecifierSet(project["requires-python"])
    assert "-e .[book,test]" in pip
    assert named([line for line in pip if not line.startswith("-e")]) == named(project["dependencies"])


def test_lock_holds_every_dependency_at_an_allowed_version(project):
    wanted = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    locked = {}
    for pin in pins():
        locked.setdefault(canonicalize_name(pin.name), []).append(next(iter(pin.specifier)).version)
    for requirement in map(Requirement, wanted):
        versions = locked.get(canonicalize_name(requirement.name), [])
        assert versions, f"{requirement.name} is not in requirements.lock; run `make lock`"
        for version in versions:
            assert requirement.specifier.contains(version), f"{requirement.name} {version} is locked; run `make lock`"


def test_lock_is_nothing_but_exact_pins():
    for pin in pins():
        (specifier,) = pin.specifier
        assert specifier.operator == "==" and pin.url is None, f"{pin} is not an exact pin"


def test_lock_names_one_version_per_package_on_every_supported_python():
    for python in ("3.11.7", "3.12.0", "3.13.0"):
        place = {"python_version": python.rpartition(".")[0], "python_full_version": python, "sys_platform": "linux"}
        chosen = [canonicalize_name(pin.name) for pin in pins() if pin.marker is None or pin.marker.evaluate(place)]
        assert len(chosen) == len(set(chosen)), f"two versions of one package on Python {python}"
        assert {"torch", "numpy", "jupyter-book", "pytest"} <= set(chosen)


# -- the book's settings -----------------------------------------------------------------------------------------------


def test_book_settings_have_no_unknown_key():
    """Jupyter Book ignores a misspelt key without a word."""
    allowed = {
        "": "title author copyright logo only_build_toc_files exclude_patterns execute bibtex_bibfiles repository html"
        " parse sphinx",
        "execute": "execute_notebooks",
        "repository": "url branch path_to_book",
        "html": "favicon use_edit_page_button use_repository_button use_issues_button home_page_in_navbar baseurl",
        "parse": "myst_enable_extensions",
        "sphinx": "extra_extensions config",
    }
    settings = yaml.safe_load((ROOT / "_config.yml").read_text())
    for part, known in allowed.items():
        found = settings if part == "" else settings.get(part, {})
        assert set(found) <= set(known.split()), f"unknown key in {part or '_config.yml'}"


def test_sphinx_settings_of_the_book_have_no_unknown_key(tmp_path):
    """Sphinx ignores them too: every key must be one that Sphinx or a loaded extension declares."""
    from sphinx.application import Sphinx

    settings = yaml.safe_load((ROOT / "_config.yml").read_text())
    extensions = ["myst_nb", "sphinxcontrib.bibtex", *settings["sphinx"]["extra_extensions"]]
    overrides = {"extensions": extensions, "bibtex_bibfiles": []}
    (tmp_path / "index.md").write_text("# Empty\n")
    app = Sphinx(tmp_path, None, tmp_path / "out", tmp_path / "trees", "html", overrides, status=None, warning=None)
    assert set(settings["sphinx"]["config"]) <= {value.name for value in app.config}


def test_book_settings_name_files_that_exist():
    settings = yaml.safe_load((ROOT / "_config.yml").read_text())
    config = settings["sphinx"]["config"]
    static = [ROOT / folder for folder in config["html_static_path"]]
    for name in [*config["html_css_files"], *config["html_js_files"], config["mathjax_path"]]:
        assert any((folder / name).is_file() for folder in static), f"{name} is not in {config['html_static_path']}"
    for name in settings["bibtex_bibfiles"]:
        assert (ROOT / name).is_file()


def test_every_page_is_in_the_table_of_contents_and_every_entry_is_a_page():
    import check

    listed = check.toc_pages(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    assert len(listed) == len(set(listed)), "a page is listed twice"
    pages = [*ROOT.glob("book/**/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    there = {path.relative_to(ROOT).with_suffix("").as_posix() for path in pages}
    assert set(listed) == there


# -- what is tracked ---------------------------------------------------------------------------------------------------


def readme_tree(readme: str) -> set[str]:
    """The paths drawn in the README's tree: lines of the code block that shows the Makefile, nested by indentation.

    A line starts with one or more names, set apart by two spaces from what is said about them.
    """
    blocks = [b for b in re.findall(r"^```\w*\n(.*?)^```", readme, re.S | re.M) if "Makefile" in b and "fewshot/" in b]
    assert len(blocks) == 1, "the README draws the tree once, in a code block"
    paths, folders = set(), []
    for line in blocks[0].splitlines():
        bare = re.sub(r"[│├└─]", " ", line)
        indent = len(bare) - len(bare.lstrip())
        names = re.split(r"\s{2,}", bare.strip())[0].split() if bare.strip() else []
        columns = re.split(r"\s{2,}", bare.strip())[1:]
        names += [c for c in columns if re.fullmatch(r"[\w.-]+(\.(py|md|yml|yaml|toml|lock|cff)|/)", c)]
        folders = [(depth, folder) for depth, folder in folders if depth < indent]
        parent = folders[-1][1] if folders else ""
        for name in names:
            paths.add(parent + name.rstrip("/"))
        if names and names[0].endswith("/"):
            folders.append((indent, parent + names[0]))
    return paths


def test_readme_tree_parser_reads_nested_paths():
    lines = ["Makefile          make", "pyproject.toml  README.md   (pins)", "fewshot/", "  methods/     one file", "    coop.py"]
    drawn = "\n".join(["```", *lines, "  fit.py  select.py", "```"])
    inside = {f"fewshot/{name}" for name in ("methods", "methods/coop.py", "fit.py", "select.py")}
    assert readme_tree(drawn) == {"Makefile", "pyproject.toml", "README.md", "fewshot"} | inside


def test_readme_tree_is_true():
    drawn = readme_tree((ROOT / "README.md").read_text())
    missing = {path for path in drawn if not (ROOT / path).exists() and not list(ROOT.glob(path))}
    assert not missing, "the README draws what does not exist"
    top = {name.split("/")[0] for name in tracked()} - {".gitignore", "README.md"}
    assert top <= {path.split("/")[0] for path in drawn}, "the README's tree leaves something out"


def test_only_weights_rows_and_mathjax_are_large():
    large = {name for name in tracked() if (ROOT / name).stat().st_size > 2**20}
    weights = {name for name in large if re.fullmatch(r"fewshot/toy/[\w-]+\.safetensors", name)}
    rows = {name for name in large if re.fullmatch(r"results/[\w-]+\.jsonl", name)}
    assert large - weights - rows <= BIG
    assert all((ROOT / name).stat().st_size < 15 * 2**20 for name in weights)


def text_of(name: str) -> str:
    path = ROOT / name
    return path.read_text(encoding="utf-8") if path.suffix in TEXT and name not in BIG and path.name != "LICENSE" else ""


INDEX = re.compile(r"(?<!emit)-index[-]url|find[-]links|PIP_(?:EXTRA_)?INDEX|UV_(?:DEFAULT_)?INDEX|https?://[^\s\"']*/simple\b")
MACHINE = re.compile(r"(?<![\w.~}])/(?:home|Users|root|work|mnt|data[0-9]?|scratch)/[\w.]")


def test_no_file_names_a_package_index():
    assert not {name: hit.group() for name in tracked() if (hit := INDEX.search(text_of(name)))}
    assert "://" not in text_of("requirements.lock")


def test_no_file_names_a_path_of_one_machine():
    assert not {name: hit.group() for name in tracked() if (hit := MACHINE.search(text_of(name)))}


@pytest.mark.parametrize("line", ["pip install --extra-index" + "-url x", "/ho" + "me/jo/x", "open('/wo" + "rk/main')"])
def test_the_searches_for_addresses_find_what_they_look_for(line):
    assert INDEX.search(line) or MACHINE.search(line)


def test_workflows_are_valid_and_call_what_exists():
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(file.read_text())["jobs"]
        for command in (step["run"] for job in jobs.values() for step in job["steps"] if "run" in step):
            for target in re.findall(r"\bmake (\w+)", command):
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), f"{file.name} calls make {target}"
            for script in re.findall(r"(?:^|\s)((?:\.ci|book|tests)/[\w./]+)", command):
                assert (ROOT / script).exists(), f"{file.name} calls {script}"


def test_importing_the_package_does_not_import_torch():
    """Pages that only read rows would otherwise wait ten seconds for torch and open_clip."""
    modules = "fewshot, fewshot.rows, fewshot.runs, fewshot.report, fewshot.parameters"
    code = f"import sys, {modules}; print([name for name in ('torch', 'open_clip') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_every_method_cites_a_paper_of_the_bibliography():
    from fewshot.methods import METHODS, get_method

    keys = set(re.findall(r"^@\w+\{([^,\s]+),", (ROOT / "book" / "references.bib").read_text(), re.M))
    assert {get_method(name).paper for name in METHODS} <= keys


def test_readme_shows_the_numbers_of_the_rows():
    import readme

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.renewed(text) == text, "run python book/readme.py"
