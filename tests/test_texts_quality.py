"""The sentences that ship are counted, short, different, about what can be seen; and the report notices when they are not."""

import json
import tomllib
from pathlib import Path

import descriptions
import pytest

from fewshot.__main__ import main
from fewshot.errors import FewshotError
from fewshot.texts import FOLDER, domain_of, same
from fewshot.texts.generate import classes_of
from fewshot.texts.quality import faults, near_pairs, report, table, tokens

# what must ship: classes, and sentences of each
SHIPPED = {
    "cub": (200, 10),
    "oxford_pets": (37, 30),
    "grocery": (28, 10),
    "toy_cub": (20, 30),
    "toy_oxford_pets": (16, 30),
}
ALL = sorted(p.stem for p in FOLDER.glob("*.json") if not p.name.endswith(".meta.json"))


@pytest.fixture(scope="module")
def measured():
    reports = {}

    def of(name):
        if name not in reports:
            reports[name] = report(FOLDER / f"{name}.json")
        return reports[name]

    return of


@pytest.mark.parametrize("name", SHIPPED)
def test_it_ships_with_so_many_sentences(measured, name):
    assert (FOLDER / f"{name}.json").is_file(), f"fewshot/texts/{name}.json is not written yet"
    classes, each = SHIPPED[name]
    one = measured(name)
    assert (classes, each, each) == (one.classes, one.fewest, one.most)


@pytest.mark.parametrize("name", ALL)
def test_shipped_sentences_have_no_fault(measured, name):
    assert not faults(measured(name))
    assert measured(name).genuine, "no meta file, or its sha256 is another one's"
    assert measured(name).shortest >= 3 and measured(name).tokens <= 77


@pytest.mark.parametrize("name", ALL)
def test_shipped_sentences_speak_of_what_can_be_seen_and_not_only_of_names(measured, name):
    assert measured(name).visual >= 0.9
    assert measured(name).named <= 0.8


@pytest.mark.parametrize("name", ALL)
def test_meta_file_names_origin_prompt_and_licence(name):
    meta = json.loads((FOLDER / f"{name}.meta.json").read_text())
    assert meta["licence"] == "Apache-2.0" and meta["prompt_id"] and meta["date"]
    if name.startswith("toy_"):  # what is drawn is known, so a program fills in templates
        assert meta["origin"].startswith("composed for this project by a program, from templates written by a large")
        assert meta["prompt_id"] == "attributes" and meta["prompt"] is None
    else:
        assert meta["origin"] == "written for this project by a large language model" and meta["prompt"]


@pytest.mark.parametrize("name", [name for name in ALL if name != "grocery"])
def test_keys_are_the_classes_in_label_order(name):
    dataset = name.replace("toy_", "toy/", 1)
    keys = json.loads((FOLDER / f"{name}.json").read_text())
    assert [same(key) for key in keys] == [same(key) for key in classes_of(dataset).names]


def test_keys_of_grocery_are_classes_of_grocery():
    keys = json.loads((FOLDER / "grocery.json").read_text())
    assert {same(key) for key in keys} <= {same(key) for key in classes_of("grocery").names}


# -- the report notices --------------------------------------------------------------------------------------------------


def written(folder: Path, **classes) -> Path:
    path = folder / "some.json"
    path.write_text(json.dumps({name.replace("_", " "): lines for name, lines in classes.items()}))
    return path


GOOD = {
    "fish_crow": ["The Fish Crow has a black bill.", "Its tail is short and dark."],
    "blue_jay": ["A blue crest tops its head.", "The wings have white bars."],
}


def test_a_sound_file_has_no_fault(tmp_path):
    one = report(written(tmp_path, **GOOD))
    assert not faults(one)
    assert (one.classes, one.sentences, one.fewest, one.most, one.shortest, one.longest) == (2, 4, 2, 2, 5, 7)
    assert one.words == 6.0 and one.named == 0.25 and one.visual == 1.0 and one.genuine is None


@pytest.mark.parametrize(
    "line, fault",
    [("its TAIL is short, and dark.", "are repeated within a class"), ("A blue crest tops its head.", "stand under two classes"),
     ("A blue crest tops the head of a Blue-Jay.", "name another class"), ("Smaller than the blue jays.", "name another class"),
     ("1. The bill is red.", "start with a list mark"), ("The bill is caf\u00e9 brown.", "have characters beyond ASCII"),
     ("The bill is red", "lack a full stop"), ("black " * 80 + "bill.", "tokens, and CLIP reads 77")],
)  # fmt: skip
def test_each_fault_is_noticed(tmp_path, line, fault):
    classes = {name: list(lines) for name, lines in GOOD.items()}
    classes["fish_crow"].append(line)
    classes["blue_jay"].append("The neck has a black ring.")
    found = faults(report(written(tmp_path, **classes)))
    assert [one for one in found if fault in one] and len(found) <= 2


def test_sentences_that_differ_in_the_class_name_alone_are_nearly_the_same(tmp_path):
    words = "has a long black bill and a white ring around its dark eye."
    found = faults(report(written(tmp_path, fish_crow=[f"The Fish Crow {words}"], blue_jay=[f"The Blue Jay {words}"])))
    assert len(found) == 1 and "nearly stand under two classes" in found[0]


def test_uneven_classes_are_noticed(tmp_path):
    classes = GOOD | {"blue_jay": ["The wings have white bars."]}
    assert faults(report(written(tmp_path, **classes))) == ["classes have from 1 to 2 sentences"]


def test_changed_file_does_not_fit_its_meta_file(tmp_path):
    path = written(tmp_path, **GOOD)
    path.with_name("some.meta.json").write_text('{"sha256": "0"}')
    assert "its sha256 differs" in faults(report(path))[0]


def test_colour_is_no_name_of_a_class(tmp_path):
    path = written(tmp_path, orange=["The round fruit has orange skin."], lemon=["An orange tint is rare on its rind."])
    assert not report(path).others


def test_near_pairs_are_those_of_the_definition():
    sets = [set("abcdefghij"), set("abcdefghik"), set("abcdefghi"), set("xyz"), set()]  # 9 of 11, 9 of 10, 9 of 10
    assert near_pairs(sets, list("pqrst")) == [(0, 1), (0, 2), (1, 2)]
    assert near_pairs(sets, list("pqrst"), 0.85) == [(0, 2), (1, 2)]
    assert near_pairs(sets, list("ppqrs")) == [(0, 2), (1, 2)]
    assert near_pairs(sets, list("ppprs")) == near_pairs(sets, list("pqrst"), 0.9) == []


def test_tokens_count_the_two_special_ones():
    assert tokens("a photo of a dog.") == 8


# -- commands and page ---------------------------------------------------------------------------------------------------


def test_check_prints_the_table_and_fails_on_a_fault(tmp_path, capsys):
    assert main(["texts", "check", str(written(tmp_path, **GOOD))]) == 0
    assert "| Sentences | 4 |" in capsys.readouterr().out
    bad = written(tmp_path, blue_jay=["The bill is red"])
    assert main(["texts", "check", str(bad)]) == 2
    assert "has 1 faults, listed above" in capsys.readouterr().err


def test_show_counts_and_gives_examples(capsys):
    assert main(["texts", "show", "cub"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("cub.json: 200 classes, 10 sentences each, 2000 in all") and "Black footed Albatross" in out


@pytest.mark.parametrize("command", ["show", "check"])
@pytest.mark.parametrize(
    "text, fault", [(None, "there is no file"), ("{", "not valid JSON"), ("{}", "no class"), ("[1]", "should be")]
)
def test_what_is_no_file_of_sentences_is_one_sentence(tmp_path, capsys, command, text, fault):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    assert main(["texts", command, str(path)]) == 2
    assert fault in capsys.readouterr().err


def test_class_without_sentences_is_one_sentence(tmp_path):
    with pytest.raises(FewshotError, match="has a class without sentences"):
        report(written(tmp_path, fish_crow=["The bill is red."], blue_jay=[]))


def test_page_shows_today_s_table_and_examples():
    text = descriptions.PAGE.read_text(encoding="utf-8")
    assert descriptions.renewed(text) == text, "run python book/descriptions.py"


def test_page_table_has_a_column_per_file(measured):
    assert table([measured("cub")]).splitlines()[0] == "|  | `cub` |"
    assert domain_of("a photo of a {}, a type of bird.") == "bird"


def test_page_s_directives_open_and_close():
    """A fence of backticks whose title holds a backtick is no fence, and Sphinx says nothing."""
    page = descriptions.PAGE.read_text(encoding="utf-8")
    titles = [line for line in page.splitlines() if line.startswith("````")]
    assert len(titles) == 2 * len(descriptions.files()) and not [one for one in titles if "`" in one.strip("`")]


def test_sentences_are_in_the_wheel():
    project = tomllib.loads((FOLDER.parent.parent / "pyproject.toml").read_text())
    assert "texts/*.json" in project["tool"]["setuptools"]["package-data"]["fewshot"]
