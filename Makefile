# make book           run the notebooks and build the book; prints the page to open
# make book FRESH=1   the same, after measuring every committed row again from nothing
# make test           lint, unit tests, notebooks, book, finished pages
# make strip          remove outputs from notebooks/*.ipynb before a commit
# Needs make and Python 3.11-3.13; everything else is installed into .venv. Another Python: make PYTHON=python3.12 book
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
PIP := $(BIN)/python -m pip install -qq
UV := UV_SYSTEM_CERTS=true UV_NATIVE_TLS=true $(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python
STRIP := nbstripout --keep-id --keep-count --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.language_info metadata.widgets"

.PHONY: book test unit mutations strip lock links clean
.DELETE_ON_ERROR:

book: $(VENV)/.ready
	@$(BIN)/python book/build.py $(if $(FRESH),--fresh)

# The summaries of the three runs of pytest are repeated at the end.
test: $(VENV)/.ready
	@rm -rf _build/test && mkdir -p _build/test
	$(BIN)/ruff check .
	set -o pipefail; $(PYTEST) tests -m "not book" 2>&1 | tee _build/test/1-unit.log
	set -o pipefail; $(PYTEST) --nbval-lax --nbval-current-env --nbval-cell-timeout=300 --dist loadfile notebooks 2>&1 | tee _build/test/2-notebooks.log
	@$(BIN)/python book/build.py
	set -o pipefail; $(PYTEST) tests -m book -rs 2>&1 | tee _build/test/3-book.log
	@echo; tail -qn 1 _build/test/*.log

unit: $(VENV)/.ready
	$(BIN)/ruff check .
	$(PYTEST) tests -m "not book"

strip: $(VENV)/.ready
	$(BIN)/$(STRIP) notebooks/*.ipynb

# Typical mistakes, one at a time: each must make the tests that are named for it fail. Takes a minute.
mutations: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutations.py

# Asks every linked server; needs a network, so it is no part of `make test`.
links: book
	$(BIN)/jupyter-book build _build/stage --builder linkcheck

# After a change of the dependencies in pyproject.toml. The pins hold no index addresses.
lock: $(VENV)/.ready
	$(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --all-extras --no-emit-index-url --no-header --no-annotate -o requirements.lock

clean:
	rm -rf _build

# uv installs in seconds what takes pip minutes; where uv cannot be had or fails, pip does it.
$(VENV)/.ready: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v[:2] < (3, 14) else \
	  "This needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ..." % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
	  { echo '$(PYTHON) has no venv module. On Debian and Ubuntu: sudo apt install python3-venv'; exit 1; }
	@test -x $(BIN)/python || { echo 'Creating $(VENV) (about 5 GB with PyTorch)'; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null
	@test -x $(BIN)/uv || $(PIP) 'uv>=0.9' || true
	@if test -x $(BIN)/uv && $(UV) -r requirements.lock; then :; \
	  else echo 'uv could not do it: pip installs instead, which takes minutes.'; $(PIP) -r requirements.lock; fi
	@if test -x $(BIN)/uv && $(UV) --no-deps -e .; then :; else $(PIP) --no-deps -e .; fi
	@touch $@
