# Start with `make demo` and `make test`. `make check` runs everything that CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
# Tests mostly wait for servers, so there can be more processes than cores.
TEST_PROCESSES ?= 4
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/ready: pyproject.toml deploy/lock/dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --requirement deploy/lock/dev.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

venv: $(VENV)/ready  ## create the virtual environment .venv with everything installed

demo: venv  ## run examples/reef_heat.yaml on a complete platform on this machine
	@$(BIN)/python -m ems_worker.local.demo examples/reef_heat.yaml

# Compiled modules are kept, even if the environment disables that: tests start hundreds of processes.
test test-long: export PYTHONDONTWRITEBYTECODE :=

test: venv  ## run the quick tests: pure code, real servers and commands
	$(BIN)/python -m pytest -m 'not long' -n $(TEST_PROCESSES) --dist loadfile --ignore tests/containers

test-long: venv  ## run the long tests: coverage, large plans, kills, attacks, fuzzing, many examples; containers if an engine responds
	$(BIN)/python -m pytest -m 'not long' -n 2 --cov --cov-report=term tests/unit
	$(BIN)/python -m pytest -m 'long or hypothesis' --hypothesis-profile long --timeout 600 -n $(TEST_PROCESSES) --ignore tests/containers
	$(BIN)/python -m pytest tests/containers

lint: venv  ## run ruff and mypy; check imports, protos, generated files and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf breaking --against baseline.binpb
	$(BIN)/python protos/generate.py --check
	$(BIN)/python -m docs.generate --check
	$(BIN)/hadolint Dockerfile

lock: venv  ## update deploy/lock after a change to pyproject.toml; UPGRADE=--upgrade takes the newest versions
	$(LOCK) $(UPGRADE) pyproject.toml --extra dev --output-file deploy/lock/dev.txt
	$(LOCK) $(UPGRADE) pyproject.toml --extra design --output-file deploy/lock/design.txt
	$(LOCK) $(UPGRADE) pyproject.toml --extra local --output-file deploy/lock/local.txt
	$(LOCK) $(UPGRADE) pyproject.toml --extra design --extra local --output-file deploy/lock/design,local.txt
	echo 'setuptools>=77,<81' | $(LOCK) $(UPGRADE) - --output-file deploy/lock/build.txt

newer: venv  ## list newer versions than those in deploy/lock that pyproject.toml allows
	@mkdir -p build
	@$(LOCK) --upgrade pyproject.toml --extra dev | grep == | tr -d ' \\' > build/newest.txt || true
	@grep == deploy/lock/dev.txt | tr -d ' \\' | diff --suppress-common-lines - build/newest.txt && echo "all versions are the newest allowed" || true

protos: venv  ## generate ems_worker/pb from protos/
	$(BIN)/python protos/generate.py

docs: venv  ## generate the pages and tables that come from the code
	$(BIN)/python -m docs.generate

recording: venv  ## record docs/images/run.svg, the terminal that the README shows
	$(BIN)/python -m docs.recording

# Both build the orchestrator in Go if it is there; `make bench` installs the peers under build/.
bench-quick: venv  ## measure speed, memory and latency against the goals, in about two minutes
	$(BIN)/python -m benchmarks.quick

bench: venv  ## the same in full, beside other task queues, in about 25 minutes; writes docs/performance.md
	$(BIN)/python -m benchmarks.full

check: lint test test-long  ## run everything that CI runs

clean:  ## remove the files that the other targets created
	rm -rf $(VENV) demo-data .coverage .hypothesis .mypy_cache .ruff_cache .import_linter_cache build *.egg-info

.PHONY: help venv demo test test-long lint lock newer protos docs recording bench-quick bench check clean
