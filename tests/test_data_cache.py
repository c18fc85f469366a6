"""Errors name the remedy; a cached file is whole or absent."""

import pytest

from fewshot.cache import atomic_write, cache_dir
from fewshot.errors import FewshotError, unknown


def test_a_typo_is_answered_with_the_nearest_name():
    error = unknown("method", "tip-adapter", ["tip_adapter", "coop"])
    assert isinstance(error, FewshotError) and isinstance(error, ValueError)
    assert str(error) == "unknown method 'tip-adapter'; did you mean 'tip_adapter'?"


def test_an_unlike_name_is_answered_with_the_list():
    assert str(unknown("method", "xyz", ["b", "a"])) == "unknown method 'xyz'; known: a, b."


def test_the_cache_folder_is_where_the_environment_says_and_created(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "deep" / "cache"))
    assert cache_dir() == tmp_path / "deep" / "cache"
    assert cache_dir().is_dir()


def test_an_impossible_cache_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FewshotError, match="set FEWSHOT_CACHE"):
        cache_dir()


def test_a_written_file_replaces_the_old_one_at_once(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with atomic_write(target) as temporary:
        temporary.write_text("one")
        assert temporary.parent == target.parent and not target.exists()
    with atomic_write(target) as temporary:
        temporary.write_text("two")
        assert target.read_text() == "one"
    assert target.read_text() == "two"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_nothing(tmp_path, interruption):
    target = tmp_path / "file.txt"
    with pytest.raises(interruption), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise interruption
    assert list(tmp_path.iterdir()) == []
