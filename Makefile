# Each target makes .venv, installs what constraints.txt pins, and runs: on a fresh machine one command is enough.
PYTHON ?= python3
BIN = .venv/bin
# Two cells at a time where there are two cores.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(2, os.cpu_count() or 1))')

pip = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Without an NVIDIA driver, torch is the build without CUDA and its packages, where pip's index has one.
NVIDIA ?= /proc/driver/nvidia/version
driver = { command -v nvidia-smi || test -e $(NVIDIA); } >/dev/null 2>&1

.PHONY: install compare test report torture lint gpu

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	if $(driver) || ! $(pip) '$(shell grep ^torch== constraints.txt)+cpu' 2>/dev/null; then $(pip) torch; fi
	$(pip) --editable .
	touch $@

# What tests and lint need besides.
.venv/tools: .venv/installed
	$(pip) --editable '.[dev]'
	touch $@

compare: install
	$(BIN)/python -m comparisons.marginal_likelihood --samples 50000 --optimizer adam --step-size 0.02 --eval-points 200 --seeds 0 1 2 --workers $(WORKERS)

test: .venv/tools
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# The report from the rows and files in reports/, and the results in README.md; runs nothing.
report: install
	$(BIN)/python -m comparisons.report --out reports --readme README.md

# Hours of kills and other harm, and the cases that make test leaves to others (`thorough`). What came of the harm goes
# to reports/reliability/.
torture: .venv/tools
	rm -f reports/reliability/rows.csv
	TORTURE=8 $(BIN)/python -m pytest -m "fault or thorough" --reliability=reports/reliability

# On one card, in eight minutes at most: the contracts, step times, then Figures 2 and 3 as far as the minutes reach.
# Each command may have so many seconds: an H200 held 119 of the 200 contracts in 80. The figures go on the next time.
# DEVICE=cpu tries it anywhere.
DEVICE ?= cuda
GPU_OUT ?= reports/gpu
GPU_TIMES ?= 150 120 130 80
FIGURE2 ?= --samples 100000000 --n-hidden 500 --n-latent 20 --pilot-steps 3000 --eval-points 10000
FIGURE3 ?= --samples 60000000 --n-train 1000 --n-hidden 100 --n-latent 3 --pilot-steps 3000
RACE = --data mnist --engine numpyro --warmup 0 --elbo-draws 4 --device $(DEVICE)
within = timeout --signal=INT --kill-after=15 $(word $(1),$(GPU_TIMES)) $(BIN)/python -m comparisons.

gpu: export XLA_PYTHON_CLIENT_PREALLOCATE = false
gpu: install
	@$(BIN)/python -c 'import jax; jax.devices("$(DEVICE)")' 2>/dev/null || \
	{ echo "gpu: jax finds no $(DEVICE) here, so nothing is run"; exit 0; }; set -x; mkdir -p $(GPU_OUT); \
	$(call within,1)check --backend all --device $(DEVICE) > $(GPU_OUT)/check.txt; tail -n 1 $(GPU_OUT)/check.txt; \
	$(call within,2)speed --parts step --device $(DEVICE) --threads 1 --repeats 3 --seconds 0.2 --out $(GPU_OUT)/speed; \
	$(call within,3)lower_bound $(RACE) $(FIGURE2) --backend aevb wake_sleep --workers 2 --out $(GPU_OUT)/lower_bound; \
	$(call within,4)marginal_likelihood $(RACE) $(FIGURE3) --backend aevb wake_sleep --seeds 0 1 2 --evidence quadrature --workers 6 \
		--out $(GPU_OUT)/marginal_likelihood; true

lint: .venv/tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
