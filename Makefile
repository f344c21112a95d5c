# `make demo` and `make test`; `make help` lists the others. Each creates the environment it needs first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUTPUT ?= demo-output

# CPU-only torch where there is no NVIDIA GPU: constraints-cpu.txt pins the build that brings no CUDA.
CONSTRAINTS := $(if $(shell command -v nvidia-smi),,-c constraints-cpu.txt)

WORKERS ?= 2
MINUTES ?= 10
TARGETS ?= $(notdir $(wildcard tests/fuzz/corpus/*))
PYTEST := $(BIN)/python -m pytest --durations=15
SPREAD := -n $(WORKERS) --dist loadscope
FLOORS := tests/runtime tests/serving tests/report tests/calibration/metrics tests/cli/test_cli_verbs.py \
	tests/cli/test_cli_calibrate.py tests/cli/test_doctor.py tests/cli/test_cli_extras.py
UNIT := tests/runtime/method tests/runtime/images tests/calibration/promises tests/calibration/metrics tests/serving/rows

.PHONY: help demo test test-unit test-slow test-all test-floors mutation fuzz sbom check format docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/installed ## the whole chain on embedded models and real images, three minutes
	$(BIN)/diffood demo --output $(OUTPUT)

test: $(VENV)/installed ## what a change can break, six minutes on two cores
	$(PYTEST) $(SPREAD) -m "not slow and not gpu"

test-unit: $(VENV)/installed ## pure modules without an engine, one minute
	$(PYTEST) -m "not slow and not gpu" $(UNIT)

test-slow: $(VENV)/installed ## what `test` leaves out: Ray, Triton, browser, coverage over many draws, large graphs
	$(PYTEST) $(SPREAD) -m "slow or gpu"

test-all: $(VENV)/installed ## all tests, with 200 examples of each law, 25 minutes on two cores
	$(PYTEST) $(SPREAD) --hypothesis-profile=ci

test-floors: $(VENV)/installed ## the runtime and the command line on the oldest versions pyproject.toml allows, ten minutes
	$(PYTHON) -m venv $(VENV)-floors
	$(BIN)/python tests/floors.py > $(VENV)-floors/floors.txt
	$(VENV)-floors/bin/python -m pip install --quiet -c $(VENV)-floors/floors.txt $(CONSTRAINTS) \
		--editable '.[export,parquet,pictures,remote,report]' filelock hypothesis pytest pytest-timeout scikit-learn
	$(VENV)-floors/bin/python -m pytest -m "not slow and not gpu" $(FLOORS)

mutation: $(VENV)/installed ## mutation scores of the pure modules, an hour of one core
	$(BIN)/python -m pip install --quiet --editable '.[mutation]'
	$(BIN)/python tests/mutation/score.py

fuzz: $(VENV)/installed ## coverage-guided fuzzing, MINUTES=10 for each of TARGETS; what fails is left in .fuzz/
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	for target in $(TARGETS); do $(BIN)/python tests/fuzz/run.py $$target --minutes $(MINUTES) || exit 1; done

sbom: $(VENV)/installed ## dist/diffood.cdx.json: the exact versions that a plain install brings, in CycloneDX
	$(BIN)/python -m pip install --quiet --editable '.[sbom]'
	$(PYTHON) -m venv --clear $(VENV)-plain
	$(VENV)-plain/bin/python -m pip install --quiet .
	mkdir -p dist
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file dist/diffood.cdx.json \
		$(VENV)-plain/bin/python

check: $(VENV)/installed ## lint, types, layers, spelling, documentation
	$(BIN)/ruff check diffood research tests benchmarks docs setup.py
	$(BIN)/ruff format --check diffood research tests benchmarks docs setup.py
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
	rm -rf $(VENV) $(VENV)-floors $(VENV)-plain build site dist *.egg-info $(OUTPUT)
