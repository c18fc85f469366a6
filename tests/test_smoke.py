"""Every notebook runs from nothing: an empty cache, no stored row, a few steps per run. tests/smoke.yaml says with what."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
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


def test_every_entry_belongs_to_a_notebook():
    assert set(SMOKE) == {path.stem for path in ROOT.glob("notebooks/*.ipynb")}
