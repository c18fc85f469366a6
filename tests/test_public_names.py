"""What `import fewshot` offers."""

import subprocess
import sys

import fewshot


def test_every_public_name_stays_what_it_is_when_its_module_has_been_imported():
    for _ in range(2):
        kinds = {name: type(getattr(fewshot, name)).__name__ for name in fewshot.__all__}
    assert "module" not in kinds.values()


def test_importing_the_package_imports_neither_torch_nor_open_clip():
    code = "import sys, fewshot, fewshot.methods; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_name_that_does_not_exist_is_an_attribute_error():
    assert not hasattr(fewshot, "load_clop")
