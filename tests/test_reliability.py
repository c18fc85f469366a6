"""The page on reliability says what was measured, and the campaign behind it would notice what it counts."""

import json
import random
import re
from pathlib import Path

import pytest
import reliability

from benchmarks.faults import __main__ as campaign
from benchmarks.faults import kills
from benchmarks.faults.grid import judged, made, runs, whole
from benchmarks.load import plan

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = [made(one) for one in runs(4)]


def stored(path: Path, rows=EXPECTED) -> Path:
    path.write_text("".join(json.dumps({"schema": 1} | row) + "\n" for row in rows))
    return path


def cost(path: Path, before=EXPECTED) -> dict:
    found = judged(path, before, EXPECTED)
    return {name: found[name] for name in ("lost", "doubled", "torn", "same")}


def test_whole_rows_in_any_order_cost_nothing(tmp_path):
    found = cost(stored(tmp_path / "r.jsonl", EXPECTED[::-1]))
    assert found == {"lost": 0, "doubled": 0, "torn": 0, "same": True}


def test_a_lost_row_a_torn_line_and_another_number_are_noticed(tmp_path):
    path = stored(tmp_path / "r.jsonl", EXPECTED[:3])
    assert cost(path) == {"lost": 1, "doubled": 0, "torn": 0, "same": False}
    assert cost(path, before=EXPECTED[:2]) == {"lost": 0, "doubled": 0, "torn": 0, "same": False}
    path.write_text(path.read_text() + json.dumps(EXPECTED[3])[:-9])
    assert cost(path) == {"lost": 1, "doubled": 0, "torn": 1, "same": False}
    assert len(whole(path)) == 3
    changed = EXPECTED[:3] + [EXPECTED[3] | {"nll": EXPECTED[3]["nll"] * (1 + 1e-15)}]
    assert cost(stored(path, changed)) == {"lost": 0, "doubled": 0, "torn": 0, "same": False}


def test_a_row_that_stands_there_twice_is_noticed(tmp_path):
    """With another stamp, as the reader refuses the same one."""
    path = stored(tmp_path / "r.jsonl", [EXPECTED[0] | {"stamp": "old"}, *EXPECTED])
    assert cost(path) == {"lost": 0, "doubled": 1, "torn": 0, "same": False}


def test_a_trial_of_the_campaign_kills_a_grid_and_finds_it_whole(tmp_path):
    found = kills.main_process(tmp_path, random.Random(1))
    assert found["struck"] and found["rows_before"] >= found["at_rows"]
    assert reliability.totals([found]) == {"lost": 0, "doubled": 0, "torn": 0, "other numbers": 0}
    assert found["rows_after"] == len(runs())


def test_faults_were_tried_and_cost_nothing():
    trials = reliability.lines("faults")
    tried = {(trial["fault"], trial["trial"]) for trial in trials}
    assert len(tried) == len(trials), "a trial stands there twice"
    assert tried <= {(fault, i) for fault, (_, n) in campaign.FAULTS.items() for i in range(n)}
    assert sum(trial["fault"] == "main process killed" for trial in trials) == 50
    assert reliability.totals(trials) == {"lost": 0, "doubled": 0, "torn": 0, "other numbers": 0}
    for fault in ("main process killed", "main process of a pool killed"):
        assert all(trial["struck"] for trial in trials if trial["fault"] == fault)


def test_full_and_read_only_disks_were_answered_with_one_sentence_and_a_remedy():
    for trial in reliability.lines("faults"):
        if trial["fault"].startswith(("disk", "read-only")):
            assert re.search(r"free some space|choose a|choose another|set FEWSHOT_CACHE", trial["said"]), trial
            assert "\n" not in trial["said"] and trial["said"].endswith(".")


def test_totals_count_what_a_fault_costs():
    trials = [{"same": True, "lost": 1}, {"same": False, "doubled": 2, "torn": 3}]
    assert reliability.totals(trials) == {"lost": 1, "doubled": 2, "torn": 3, "other numbers": 1}


def test_the_cost_of_a_row_is_flat():
    """Of the stored measurements: the second half of a grid, and the largest file, against what went before."""
    load = reliability.lines("load")
    names = ("part", "size", "workers", "disk")
    asked = {tuple(one[n] for n in names) for one in plan(20_000)}
    assert sorted(tuple(line[n] for n in names) for line in load) == sorted(asked), "the benchmark is not complete"
    for line in load:
        if line["part"] == "grid":
            blocks = line["seconds_of_blocks"][1:]
            half = len(blocks) // 2
            if half >= 5:
                assert sum(blocks[half:]) / len(blocks[half:]) < 1.5 * sum(blocks[:half]) / half, line
    costs = {line["size"]: line["open_cpu"] / line["size"] for line in load if line["part"] == "open"}
    assert costs[100_000] < 2 * costs[10_000]


def shown(name: str) -> str:
    page = reliability.PAGE.read_text(encoding="utf-8")
    return page.split(f"<!-- {name}: begin -->\n")[1].split(f"\n<!-- {name}: end -->")[0]


@pytest.mark.parametrize("name", sorted(set(reliability.TABLES) - {"input"}))
def test_the_page_shows_the_measurements(name):
    assert shown(name) == reliability.TABLES[name](), "run python book/reliability.py"


def test_the_page_counts_no_case_that_is_not_there_and_misses_few():
    def total(text: str) -> int:
        return int(text.splitlines()[-1].split("|")[-2])

    written, today = total(shown("input")), total(reliability.input_table())
    assert 0.9 * today <= written <= today, "run python book/reliability.py"


def test_the_page_names_commands_that_exist():
    page = reliability.PAGE.read_text(encoding="utf-8")
    for file in re.findall(r"tests/\w+\.py", page):
        assert (ROOT / file).is_file()
    for module in re.findall(r"python -m (benchmarks\.\w+)", page):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file()
