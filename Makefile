# Two commands: `make demo` and `make test`. Each creates the environment it needs first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUTPUT ?= demo-output

# CPU-only torch where there is no NVIDIA GPU: constraints-cpu.txt pins the build that brings no CUDA.
CONSTRAINTS := $(if $(shell command -v nvidia-smi),,-c constraints-cpu.txt)

.PHONY: demo test check clean

demo: $(VENV)/installed
	$(BIN)/diffood demo --output $(OUTPUT)

test: $(VENV)/installed
	$(BIN)/python -m pytest

check: $(VENV)/installed
	$(BIN)/ruff check diffood research tests benchmarks
	$(BIN)/ruff format --check diffood research tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

$(VENV)/installed: pyproject.toml constraints-cpu.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info $(OUTPUT)
