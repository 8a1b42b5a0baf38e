# Two commands do everything: `make quickstart` and `make test`. Each sets the machine up first; both are safe to repeat.
PYTHON ?= python3
VENV := $(CURDIR)/.venv
# Absolute: the operator that DeepSpeed compiles is cached by the paths it was compiled with.
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install quickstart test test-slow check clean

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; set PYTHON=python3.11")'
	@command -v g++ >/dev/null || { echo "g++ is missing: DeepSpeed compiles an operator for CPU ranks. Install it (Debian: apt-get install g++) and run make again."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	@$(BIN)/pip install --quiet --only-binary simplejpeg -e '.[fast]' || echo "no simplejpeg for this machine: torchvision decodes JPEGs instead, a little slower"
	PATH="$(BIN):$$PATH" $(BIN)/python -m toolkit.build_ops
	@touch $(STAMP)

quickstart: install
	OMP_NUM_THREADS=1 PATH="$(BIN):$$PATH" $(BIN)/deepspeed --num_gpus 2 recipes/quickstart.py

test: install
	PATH="$(BIN):$$PATH" $(BIN)/pytest

test-slow: install
	PATH="$(BIN):$$PATH" $(BIN)/pytest -m slow

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_layers.py

clean:
	rm -rf $(VENV) build dist runs
