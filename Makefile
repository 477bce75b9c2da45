# Each target makes .venv, installs what constraints.txt pins, and runs: on a fresh machine one command is enough.
PYTHON ?= python3
BIN = .venv/bin
# Two cells at a time where there are two cores.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(2, os.cpu_count() or 1))')

.PHONY: install compare test report torture lint

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

compare: install
	$(BIN)/python -m comparisons.marginal_likelihood --samples 50000 --optimizer adam --step-size 0.02 --eval-points 200 --seeds 0 1 2 --workers $(WORKERS)

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The report from the rows and files in reports/, and the results in README.md; runs nothing.
report: install
	$(BIN)/python -m comparisons.report --out reports --readme README.md

# An hour of kills and other harm; what came of it goes to reports/reliability/.
torture: install
	rm -f reports/reliability/rows.csv
	TORTURE=8 $(BIN)/python -m pytest -m fault --reliability=reports/reliability

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
