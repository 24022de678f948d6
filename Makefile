# The same commands on a laptop and in CI. Nothing is needed but Python >= 3.11 and make.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
CONSTRAINTS := $(wildcard constraints-$(VERSION).txt)
GPU_PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,$(PYTHON))
PIP := .venv/bin/python -m pip --disable-pip-version-check install --quiet $(addprefix --constraint ,$(CONSTRAINTS))

.PHONY: demo demo-all test check format journeys gpu gpu-search gpu-table clean

demo: .venv/installed ## five rows of the ladder, both directions, as many jobs at a time as the cores allow: trains, measures, writes the report
	.venv/bin/bench suite experiments/demo.yaml --workers auto

demo-all: .venv/installed ## the whole ladder, all 20 rows, in the same way
	.venv/bin/bench suite experiments/ladder.yaml --workers auto

test: .venv/installed-dev ## every test but the journeys; one thread for each of as many processes as there are cores
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses auto --dist loadfile

journeys: .venv/installed-dev ## the slow, whole-system tests, two at a time
	.venv/bin/python -m pytest tests/journeys --numprocesses 2 --dist loadfile -o addopts="-q --strict-markers --strict-config --import-mode=importlib" --timeout 900

gpu: ## checks on a CUDA GPU in at most ten minutes, offline: installs nothing (docs/gpu.md); MULTI30K=FOLDER uses the captions
	$(GPU_PYTHON) -m bench.checks.gpu $(GPU_FLAGS)

# SIGTERM saves the jobs in progress, so that the next call continues them; -k ends a command that does not obey.
# Ctrl-C does not reach the command: with --foreground it would get it twice, and the second one ends it unsaved.
GPU_JOBS ?= 6
NINE_MINUTES := timeout -s TERM -k 45 540 $(GPU_PYTHON) -m bench.cli.main
CAPTIONS := $(if $(MULTI30K),--corpus.path '$(MULTI30K)')

gpu-search: ## the equal search of the preset multi30k on a GPU, nine minutes of it; run it again to continue
	$(NINE_MINUTES) sweep experiments/tune-multi30k.yaml $(CAPTIONS) --workers $(GPU_JOBS) $(GPU_FLAGS)

gpu-table: ## every row, both directions, on a GPU, nine minutes of it; run it again to continue
	$(NINE_MINUTES) suite experiments/table2-multi30k-gpu.yaml $(CAPTIONS) --workers $(GPU_JOBS) --export $(GPU_FLAGS)

check: .venv/installed-dev ## format, lint, types
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright

format: .venv/installed-dev
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml $(CONSTRAINTS) | .venv/bin/python
	@echo "installing into .venv (a few minutes the first time)"
	$(PIP) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "installing the developers' tools into .venv"
	$(PIP) --editable '.[dev,cluster,korean]'
	@touch $@

clean: ## the environment and the caches, not the runs
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info
