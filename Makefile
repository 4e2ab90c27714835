# `make help` lists what there is. Everything happens in .venv, which each target makes itself.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
BENCH = PYTHONPATH=hack $(BENCH_VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-horovod demo-sweep test lint format generate verify e2e horovod clean \
	bench-setup bench-checkpoint bench-restore bench-recovery bench-overhead bench-horovod \
	bench-sweep bench-sweep-scale

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Headway and its dependencies into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

setup: $(STAMP) ## Make the environment in .venv

demo: $(STAMP) ## Run the digits job on this machine, kill a worker on the way, and draw what happened
	@$(BIN)/python hack/demo.py

demo-horovod: $(STAMP) ## The same with a script of Horovod's (make horovod first)
	@$(BIN)/python hack/demo.py horovod

demo-sweep: $(STAMP) ## Search for good parameters on this machine, and see what they are worth
	@$(BIN)/python hack/demo_sweep.py

test: $(STAMP) ## Everything that needs no cluster
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --ignore=tests/e2e

lint: $(STAMP) ## ruff, types, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo

format: $(STAMP) ## Let ruff put the code into shape
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

generate: $(STAMP) ## Write CRDs, chart and reference from the models
	@$(BIN)/python hack/generate.py

verify: $(STAMP) ## Check that what is generated is up to date
	@$(BIN)/python hack/generate.py --check

e2e: $(STAMP) ## End-to-end tests on a kind cluster of their own
	@$(BIN)/python -m pytest tests/e2e -m e2e --timeout 900

horovod: $(STAMP) ## Build Horovod for .venv's PyTorch (minutes the first time), and install it there
	@wheel=$$(hack/horovod-wheel/build.sh $(BIN)/python .headway/horovod) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$wheel" cloudpickle packaging

# The peers have an environment of their own, which sees what .venv has: torch is there once.
$(BENCH_STAMP): $(STAMP) hack/bench/peers.py
	@test -x $(BENCH_VENV)/bin/python || $(BIN)/python -m venv $(BENCH_VENV)
	@echo "installing what Headway is compared with into $(BENCH_VENV)"
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > "$$($(BENCH_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/headway_venv.pth"
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BENCH_VENV)/bin/python hack/bench/peers.py
	@touch $(BENCH_STAMP)

bench-setup: $(BENCH_STAMP) ## Make the environment in which the benches run

bench-checkpoint: $(BENCH_STAMP) ## What a save costs the training, beside the peers (ARGS=--help)
	@$(BENCH) bench.checkpoint $(ARGS)

bench-restore: $(BENCH_STAMP) ## Restore from S3 and from memory, beside the peers
	@$(BENCH) bench.restore $(ARGS)

bench-recovery: $(BENCH_STAMP) ## From kill -9 to the next step, beside torchrun
	@$(BENCH) bench.recovery $(ARGS)

bench-overhead: $(BENCH_STAMP) ## Step time with and without Headway
	@$(BENCH) bench.overhead $(ARGS)

bench-horovod: $(BENCH_STAMP) ## Horovod's scripts beside horovodrun (make horovod first)
	@$(BENCH) bench.horovodrun $(ARGS)

bench-sweep: $(BENCH_STAMP) ## Search beside Optuna, Katib's libraries and random; stopping rules; time to think
	@$(BENCH) bench.sweep $(ARGS)

bench-sweep-scale: $(BENCH_STAMP) ## A sweep of 1,000 trials on a real API server with kwok (has to be on PATH)
	@$(BENCH) bench.sweep_scale $(ARGS)

clean: ## Remove what the targets above made
	@rm -rf $(VENV) $(BENCH_VENV) .headway demo-output .mypy_cache .ruff_cache .hypothesis
