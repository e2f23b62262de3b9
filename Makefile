# Everything is installed into .venv; nothing else has to be typed, exported or installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The build of DeepSpeed's shared-memory op, and the caches, stay inside the environment.
export TORCH_EXTENSIONS_DIR := $(abspath $(VENV))/torch_extensions
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test test-all check bench lock prices chart-schema clean

help: ## Show the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Create .venv and install everything, pinned

$(VENV)/.installed: pyproject.toml constraints.txt requirements-samples.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-samples.txt
	$(BIN)/python -m equipoise.training.build_ops
	touch $@

demo: install ## Run the main job on real data, at most ten minutes on two cores
	$(BIN)/equipoise demo

test: install ## Run the tests, at most twenty minutes on two cores
	$(BIN)/python -m pytest -m 'not slow' --durations=10 -n 2 --dist loadfile tests/unit tests/charts
	$(BIN)/python -m pytest -m 'not slow' --durations=25 tests/integration tests/apiserver

test-all: install ## Run the slow tests too
	$(BIN)/python -m pytest

check: install ## Lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install ## Measure the figures of the README and print them beside their goals
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.frontier
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.dollars
	$(BIN)/python -m benchmarks.demo
	$(BIN)/python -m benchmarks.autoscaling
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.language_model
	$(BIN)/python -m benchmarks.compression --part vocabulary
	$(BIN)/python -m benchmarks.table

# The GPU libraries of torch are left out, so that one file serves CPU and GPU machines alike.
lock: install ## Resolve every dependency anew and pin it in constraints.txt
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra image --quiet --no-header --no-annotate --no-emit-index-url \
		--python-version 3.11 --upgrade --output-file constraints.new
	grep -vE '^(nvidia-|cuda-|triton)' constraints.new > constraints.txt
	rm constraints.new

chart-schema: install ## Write charts/equipoise/values.schema.json anew, from its source and the run config
	$(BIN)/python charts/generate_schema.py

prices: install ## Print node prices out of CATALOG, a checkout of skypilot-catalog, for costs/prices.yaml
	$(BIN)/python -m equipoise.costs.catalog $(CATALOG)

clean: ## Remove the environment and the caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
