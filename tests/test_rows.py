"""A rows file never loses, repeats or tears a row, whoever dies when."""

from __future__ import annotations

import json
import multiprocessing
import os
import random

import numpy as np
import pytest

from fewshot.errors import FewshotError
from fewshot.rows import SCHEMA, Rows


def row(i: int, **more) -> dict:
    return {"key": f"{i:016x}", "stamp": "a", "experiment": "x", "method": "coop", "accuracy": 50.0, "shots": i} | more


def filled(path, n=3) -> Rows:
    rows = Rows(path)
    for i in range(n):
        rows.append(row(i))
    return rows


def test_a_row_comes_back_exactly_to_the_last_bit(tmp_path):
    rows = Rows(tmp_path / "new" / "folder" / "r.jsonl")
    third = 100 / 3
    rows.append(row(0, accuracy=np.float64(third), n_test=np.int64(7), config={"lr": 0.1 + 0.2, "name": "é"}))
    again = Rows(rows.path).frame().iloc[0]
    assert again["accuracy"] == third and again["n_test"] == 7 and again["config"] == {"lr": 0.1 + 0.2, "name": "é"}
    assert json.loads(rows.path.read_text())["schema"] == SCHEMA


def test_a_missing_file_is_an_empty_table_with_columns(tmp_path):
    rows = Rows(tmp_path / "r.jsonl")
    assert len(rows) == 0 and rows.keys() == set() and "accuracy" in rows.frame().columns
    assert not rows.path.exists()


def test_a_key_is_stored_once(tmp_path):
    rows = filled(tmp_path / "r.jsonl")
    with pytest.raises(FewshotError, match="already holds the run 0000000000000001"):
        Rows(rows.path).append(row(1))
    assert len(rows.path.read_bytes().splitlines()) == 3


def test_a_row_made_with_other_weights_replaces_the_old_one(tmp_path):
    rows = filled(tmp_path / "r.jsonl")
    assert rows.get(row(1)["key"], stamp="b") is None
    rows.append(row(1, stamp="b", accuracy=60.0))
    assert len(rows) == 3 and Rows(rows.path).get(row(1)["key"], "b")["accuracy"] == 60.0
    rows.tidy()
    assert len(rows.path.read_bytes().splitlines()) == 3 and rows.get(row(1)["key"])["stamp"] == "b"


@pytest.mark.parametrize("accuracy", [float("nan"), float("inf"), None, True, "50", -1.0, 100.1])
def test_an_accuracy_that_is_no_percentage_is_refused(tmp_path, accuracy):
    rows = Rows(tmp_path / "r.jsonl")
    with pytest.raises(FewshotError, match="accuracy"):
        rows.append(row(0, accuracy=accuracy))
    assert not rows.path.exists()


def test_what_json_cannot_hold_is_refused_by_name(tmp_path):
    with pytest.raises(FewshotError, match="cannot hold an object"):
        Rows(tmp_path / "r.jsonl").append(row(0, config=object()))


def test_every_possible_torn_last_line_is_ignored_and_cut_off(tmp_path):
    whole = filled(tmp_path / "r.jsonl").path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start + 1, len(whole)):
        path = tmp_path / f"cut{cut}.jsonl"
        path.write_bytes(whole[:cut])
        rows = Rows(path)
        complete = cut == len(whole) - 1  # only the line end is missing: the row is there
        assert len(rows) == (3 if complete else 2)
        rows.append(row(9))
        assert Rows(path).keys() == {row(i)["key"] for i in ((0, 1, 2, 9) if complete else (0, 1, 9))}
        assert all(json.loads(line) for line in path.read_bytes().splitlines())


@pytest.mark.parametrize("bad", [b"<<<<<<< HEAD", b'{"key": "1", "acc', b"[1]", b"{}", b"\xff\xfe"])
def test_a_corrupt_line_in_the_middle_is_named_by_its_number(tmp_path, bad):
    path = filled(tmp_path / "r.jsonl").path
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], bad, *lines[1:], b""]))
    rows = Rows(path)
    for _ in range(2):  # the second look must not skip it
        with pytest.raises(FewshotError, match=r"r.jsonl line 2 is not a row .*; delete that line"):
            rows.frame()


def test_a_line_twice_names_both_lines(tmp_path):
    path = filled(tmp_path / "r.jsonl").path
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines()[1] + b"\n")
    with pytest.raises(FewshotError, match="line 4 repeats the run of line 2"):
        Rows(path).keys()


def test_rows_of_a_newer_version_say_so(tmp_path):
    path = filled(tmp_path / "r.jsonl", 1).path
    path.write_text(path.read_text() + json.dumps(row(1, schema=SCHEMA + 1)) + "\n")
    with pytest.raises(FewshotError, match="line 2 was written by a newer fewshot .* update the package"):
        Rows(path).frame()


def test_a_folder_instead_of_a_file_is_refused(tmp_path):
    with pytest.raises(FewshotError, match="is a folder"):
        Rows(tmp_path)


def test_appending_reads_only_what_is_new(tmp_path, monkeypatch):
    rows = filled(tmp_path / "r.jsonl", 50)
    parsed = []
    plain = Rows._parse
    monkeypatch.setattr(Rows, "_parse", lambda self, line, number: parsed.append(number) or plain(self, line, number))
    rows.append(row(50))
    Rows.append(rows, row(51))
    assert parsed == [51, 52]


def test_a_reader_notices_a_file_that_was_sorted_edited_or_deleted(tmp_path):
    path = tmp_path / "r.jsonl"
    reader, writer = Rows(path), Rows(path)
    for i in (2, 0, 1):
        writer.append(row(i))
    assert len(reader) == 3
    writer.tidy()
    assert [json.loads(line)["shots"] for line in path.read_bytes().splitlines()] == [0, 1, 2]
    reader.append(row(3))
    assert len(Rows(path)) == len(writer) == len(reader) == 4
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    assert len(reader) == 1
    path.unlink()
    assert len(reader) == 0
    reader.append(row(7))
    assert len(writer) == 1


def test_tidy_makes_the_same_bytes_whatever_the_order_of_the_runs(tmp_path):
    files = []
    for seed in (0, 1):
        order = list(range(20))
        random.Random(seed).shuffle(order)
        rows = Rows(tmp_path / f"{seed}.jsonl")
        for i in order:
            rows.append(row(i))
        rows.tidy()
        files.append(rows.path.read_bytes())
    assert files[0] == files[1]


def _append_all(path, numbers):
    rows = Rows(path)
    for i in numbers:
        try:
            rows.append(row(i))
        except FewshotError:
            pass  # the other process was first


def test_four_processes_appending_the_same_rows_store_each_once(tmp_path):
    path = tmp_path / "r.jsonl"
    context = multiprocessing.get_context("spawn")
    orders = [random.Random(s).sample(range(40), 40) for s in range(4)]
    workers = [context.Process(target=_append_all, args=(path, order)) for order in orders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert sorted(json.loads(line)["shots"] for line in path.read_bytes().splitlines()) == list(range(40))


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    rows = filled(tmp_path / "r.jsonl")
    before = rows.path.read_bytes()
    plain = os.write
    monkeypatch.setattr(os, "write", lambda file, data: plain(file, data[: len(data) // 2]))
    with pytest.raises(FewshotError, match="could not take the row"):
        rows.append(row(5))
    monkeypatch.undo()
    assert rows.path.read_bytes() == before
    rows.append(row(5))
    assert len(Rows(rows.path)) == 4


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_row_that_is_changed_by_its_reader_is_not_changed_for_others(mark, tmp_path):
    """Rows are kept as lines; with the byte order mark of an editor they cannot be read as one text."""
    rows = filled(tmp_path / "r.jsonl")
    rows.path.write_bytes(mark + rows.path.read_bytes())
    rows.get(row(1)["key"])["accuracy"] = 0.0
    assert list(rows.frame()["accuracy"]) == [50.0] * 3 and rows.get(row(1)["key"])["accuracy"] == 50.0
