"""Every notebook runs from nothing: an empty cache, no stored row, a few steps per run. tests/smoke.yaml says with what."""

import base64
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from fewshot.studies import STUDIES

ROOT = Path(__file__).resolve().parent.parent
CHARTS = {*STUDIES, "shot_curves", "claims"}  # whose figures are drawn from numbers
SMOKE = yaml.safe_load((ROOT / "tests" / "smoke.yaml").read_text())


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs_from_nothing(path, tmp_path, tmp_path_factory):
    values = dict(SMOKE[path.stem])
    (tmp_path / "results").mkdir()
    environment = os.environ | {
        "FEWSHOT_CACHE": str(tmp_path_factory.getbasetemp() / "cache"),
        "FEWSHOT_RESULTS": str(tmp_path / "results"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "papermill", str(path), str(tmp_path / "out.ipynb"), "--kernel", "python3"]
    command += ["--no-progress-bar", "--cwd", str(path.parent), "-f", str(tmp_path / "values.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    if path.stem in CHARTS:
        files = downloads(nbformat.read(tmp_path / "out.ipynb", as_version=4))
        assert any(len(file) and len(file.select_dtypes("number").columns) for file in files.values()), list(files)


def downloads(notebook) -> dict[str, pd.DataFrame]:
    """The CSV files that the links of an executed notebook hold."""
    pages = [output.get("data", {}).get("text/html", "") for cell in notebook.cells for output in cell.get("outputs", ())]
    found = re.findall(r'<a download="([^"]+)" href="data:text/csv;base64,([^"]*)"', "\n".join(pages))
    files = {name: base64.b64decode(data) for name, data in found}
    return {name: pd.read_csv(io.BytesIO(file)) for name, file in files.items() if file.strip()}


def test_every_entry_belongs_to_a_notebook():
    assert set(SMOKE) == {path.stem for path in ROOT.glob("notebooks/*.ipynb")}
