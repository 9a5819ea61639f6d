# Everything is done by these; nothing has to be remembered.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
STAMP := $(VENV)/.installed

.PHONY: setup run test soak lint bench clean packages compatibility

# an editable install is not compiled, and the interpreter may have been told not to keep what it compiles
setup: $(STAMP)
	@$(BIN)/python -m compileall -q src

packages:
	@scripts/packages

$(STAMP): pyproject.toml scripts/packages
	@scripts/packages
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)

run: setup
	@scripts/quickstart

test: setup
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# what takes minutes, and real databases
soak: setup
	LAMINA_SOAK=1 $(BIN)/python -m pytest tests/soak -s $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports

compatibility: setup
	$(BIN)/python scripts/compatibility > docs/compatibility.md

# ROWS=run,ps some rows; ENGINES=lamina,docker some engines; BENCH_JSON=FILE the raw numbers, too
bench: setup
	@scripts/packages bench
	@$(BIN)/python -m bench

clean:
	rm -rf $(VENV) .lamina .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
