"""The list of mistakes in mutations.py cannot rot: every text is there, every test exists, every method has a mistake."""

import ast
from functools import cache
from pathlib import Path

import mutations
import pytest
from mutations import MUTATIONS, ROOT, Mutation

from fewshot.methods import METHODS

EACH = pytest.mark.parametrize("mutation", MUTATIONS, ids=[m.mistake for m in MUTATIONS])


@cache
def functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@EACH
def test_the_old_text_stands_once_in_its_file_and_the_new_one_is_python(mutation):
    text = (ROOT / "fewshot" / mutation.file).read_text()
    changed = mutation.applied(text)
    assert changed != text
    ast.parse(changed)


@EACH
def test_the_named_tests_exist(mutation):
    assert mutation.tests and len(set(mutation.tests)) == len(mutation.tests)
    for test in mutation.tests:
        file, _, name = test.partition("::")
        function, _, case = name.partition("[")
        assert function in functions(ROOT / "tests" / file), test
        if function == "test_folder":
            assert (ROOT / "tests" / "fixtures" / case.rstrip("]") / "golden.safetensors").is_file(), test


def test_every_method_has_a_mistake_and_no_two_are_the_same():
    files = {m.file for m in MUTATIONS}
    own = {"clip_lora": "lora.py"}  # what is CLIP-LoRA's own stands there
    assert {own.get(name, f"methods/{name}.py") for name in METHODS} <= files
    assert len({(m.file, m.old, m.new) for m in MUTATIONS}) == len({m.mistake for m in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("text", ["", "a = 1\na = 1\n"])
def test_a_text_that_is_gone_or_no_longer_unique_is_named(text):
    with pytest.raises(ValueError, match="renew 'one for two'"):
        Mutation("x.py", "a = 1", "a = 2", "one for two", ("t",)).applied(text)


REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_one[x-1]"><failure/></testcase>
<testcase classname="tests.test_a" name="test_two"/>
<testcase classname="tests.parity.test_parity" name="test_folder[maple]"><failure/></testcase>
<testcase classname="tests.test_b" name="test_three"><skipped/></testcase>
<testcase classname="tests.test_b" name="test_four"><error/></testcase>
</testsuite></testsuites>"""


def test_only_a_failure_counts_as_noticed(tmp_path):
    """Not an error before the test began, and not a test that was skipped."""
    (tmp_path / "report.xml").write_text(REPORT)
    case, folder = "test_a.py::test_one[x-1]", "parity/test_parity.py::test_folder[maple]"
    ran = mutations.cases(tmp_path / "report.xml")
    assert ran == {case: True, "test_a.py::test_two": False, folder: True, "test_b.py::test_four": False}
    assert mutations.matches("test_a.py::test_one", case) and mutations.matches(folder, folder)
    assert not mutations.matches("test_a.py::test_one[x-2]", case)
    assert not mutations.matches("test_a.py::test_on", case)


def test_the_list_can_be_asked_for_and_a_word_that_matches_nothing_is_no_success(capsys):
    assert mutations.main(["--list", "maple"]) == 0
    assert '"of a" is missing' in capsys.readouterr().out
    assert mutations.main(["nothing of this kind"]) == 2
