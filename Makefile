# Two commands: `make demo` and `make test`. Each creates the environment it needs first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUTPUT ?= demo-output

# CPU-only torch where there is no NVIDIA GPU: constraints-cpu.txt pins the build that brings no CUDA.
CONSTRAINTS := $(if $(shell command -v nvidia-smi),,-c constraints-cpu.txt)

.PHONY: help demo test check format docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/installed ## the whole chain on embedded models and real images, three minutes
	$(BIN)/diffood demo --output $(OUTPUT)

test: $(VENV)/installed ## the tests
	$(BIN)/python -m pytest

check: $(VENV)/installed ## lint, types, layers, spelling, documentation
	$(BIN)/ruff check diffood research tests benchmarks docs
	$(BIN)/ruff format --check diffood research tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(MAKE) docs

format: $(VENV)/installed ## format the code and mend what ruff can
	$(BIN)/ruff check --fix diffood research tests benchmarks docs
	$(BIN)/ruff format diffood research tests benchmarks docs

docs: $(VENV)/installed ## build the documentation into site/; needs no network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

$(VENV)/installed: pyproject.toml constraints-cpu.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[dev]'
	touch $@

clean: ## remove the environment and all that was built
	rm -rf $(VENV) build site dist *.egg-info $(OUTPUT)
