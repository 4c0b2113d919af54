# Each target makes its own .venv and installs from the lock when needed.
# The lock was made with Python 3.11, so that one comes first. Another: make PYTHON=/path/to/python3.12 test

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c 'import sys; sys.exit(not sys.version_info >= (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: quickstart test test-services check slow bench lock clean

quickstart: $(READY)  ## fine-tune and evaluate a tiny model, start to end
	$(BIN)/llsflow run quickstart

# files in their order: by default those of few tests, the longest, would come last and alone
PYTEST := $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(READY)  ## minutes: everything that starts no service, and one whole run
	$(PYTEST)

test-services: $(READY)  ## Prefect, worker, MLflow, API, PostgreSQL, sandbox, wheel, browser
	$(PYTEST) -m 'services and not slow and not gpu'

slow: $(READY)  ## both, and what takes minutes: real trainings, every published chat template
	$(BIN)/pytest -m 'not gpu'

check: $(READY)  ## lint, types, import rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## our figures beside our peers', in one run
	$(BIN)/python tests/bench/run.py

lock: $(READY)  ## new exact versions from pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --extra dev --strip-extras --allow-unsafe --no-header \
	  --annotation-style=line --no-emit-index-url --no-emit-find-links --output-file requirements.lock pyproject.toml
	# the same torch version comes as a CPU or a CUDA build, whichever the machine is set up for
	sed -i 's/^\(torch==[^+ ]*\)+[a-z0-9]*/\1/' requirements.lock

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "llsflow needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	# the tests speak with the official client: it asks for Python 3.12, and runs on 3.11
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python llama-stack-client==0.3.5
	@touch $@

clean:  ## what can be made again; outputs/ stays
	rm -rf .venv .venv-peers dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
