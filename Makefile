# Each target sets up what it needs by itself, so that a fresh clone needs nothing but
# Python >= 3.11, a C compiler and make. Two targets may run beside each other.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
# Tests that take samples in `make test` and everything in `make fuzz`.
EXHAUSTIVE := $(addprefix tests/,laws/test_power_cut.py laws/test_storage_faults.py \
	laws/test_journal_bytes.py laws/test_journal_crash.py laws/test_journal_damage.py \
	laws/test_simulation.py flow/test_kill.py laws/test_measure_slo_recount.py \
	laws/test_measure_slo_noise.py laws/test_measure_slo_prometheus.py \
	laws/test_measure_site_budget.py laws/test_measure_drift_whole.py)
LINTED := gateway collectors dashboards tests benchmarks setup.py

.PHONY: help build packages clients demo test lint bench fuzz clean

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

build: ## create .venv and compile the kernels
	@tools/setup.sh

packages: ## install the Debian packages that tests use, if allowed
	@tools/packages.sh prometheus prometheus-alertmanager

clients: build ## install the npm packages that tests use, if npm can
	@tools/clients.sh

demo: build ## run the gateway, an emulated fleet and the whole story
	$(PYTHON) -m gateway demo

test: build packages clients ## run all tests, a file at a time on each of two processes
	$(PYTHON) -m pytest -n 2 --dist loadfile

lint: build ## check style and types
	$(PYTHON) -m ruff check $(LINTED)
	$(PYTHON) -m ruff format --check $(LINTED)
	$(PYTHON) -m mypy

bench: build ## print the benchmarks
	$(PYTHON) -m benchmarks

fuzz: build ## run the long fuzz tests; WEIR_FUZZ_RUNS=n, WEIR_SEED=n repeats a run
	WEIR_FUZZ=1 $(PYTHON) -m pytest tests/fuzz $(EXHAUSTIVE)
	@tools/fuzz.sh

clean: ## remove everything the other targets made
	rm -rf .venv .venv.lock build ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find gateway \( -name '*.so' -o -name kernel.c -o -name wire.c \) -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
