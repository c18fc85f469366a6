"""Says at the end, by name, which fixture folders have no method yet."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]


def pytest_terminal_summary(terminalreporter):
    stats = terminalreporter.stats
    passed = [r for r in stats.get("passed", []) if r.when == "call" and "test_parity.py::test_folder[" in r.nodeid]
    skipped = [r for r in stats.get("skipped", []) if "test_parity.py::test_folder[" in r.nodeid]
    missing = [r for r in skipped if "MISSING" in str(r.longrepr)]
    if not passed and not skipped:
        return
    tensors = sum(dict(r.user_properties).get("tensors", 0) for r in passed)
    terminalreporter.write_line(f"parity: {len(passed)} folders, {tensors} tensors equal to the authors' code")
    if missing:
        names = sorted(r.nodeid.split("[", 1)[1].rstrip("]") for r in missing)
        terminalreporter.write_line(f"parity: MISSING (no method yet): {', '.join(names)}", yellow=True)
