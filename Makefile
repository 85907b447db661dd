# `make demo` and `make test` set everything up in .venv; TORCH_INDEX=URL takes torch from another index, e.g.
# https://download.pytorch.org/whl/cpu for the small build without CUDA.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
TORCH_INDEX ?=
ifneq ($(wildcard ../shared/data),)
export ALMANAC_DATA ?= $(abspath ../shared/data)
endif
BIN := .venv/bin

.PHONY: setup demo test check format bench bench-quality corrupt degraded chaos clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt torch==2.13.0 -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/almanac demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint sql
	$(BIN)/pyright

format: setup
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m benchmarks.quality
	$(BIN)/python -m benchmarks.ingest

bench-quality: setup
	$(BIN)/pip install --quiet -c constraints.txt -e '.[peers]'
	$(BIN)/python -m benchmarks.static
	$(BIN)/python -m benchmarks.backtests
	$(BIN)/python -m benchmarks.rare_items

corrupt: setup
	$(BIN)/python -m benchmarks.corrupt

degraded: setup
	$(BIN)/python -m benchmarks.degraded

chaos: setup
	$(BIN)/python -m benchmarks.chaos

clean:
	rm -rf .venv .almanac .almanac-demo
