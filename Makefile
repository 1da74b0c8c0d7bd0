# Everything a contributor types. The environment is made once, from requirements.lock, and again when that changes.

VENV ?= .venv
PYTHON ?= python3
DEMO_SECONDS ?= 60
# More than two cores have: most tests wait for something. Who is done takes over from the others.
TEST_WORKERS ?= 4
SEEDS ?= 1000
BENCH ?= memory
BIN := $(VENV)/bin
STAMP := $(VENV)/.made

.DEFAULT_GOAL := help
.PHONY: help env demo test test-cluster scenarios soaks soak seeds bench check format lock clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

env: $(STAMP) ## The environment in .venv

# Every file of the index is checked against its hash; the package itself is built by the setuptools of the lock.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing the locked dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: env ## The whole platform on this machine for DEMO_SECONDS, then the verdict
	$(BIN)/kalshi-data local --demo --seconds $(DEMO_SECONDS)

test: env ## The test suite
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal

# Needs kubectl, helm and three zones; builds the images for kind and for ../shared/testbed, else name a registry:
# ARGS="--registry REGISTRY --tag TAG".
test-cluster: env ## The eight scenarios on the cluster that KUBECONFIG names, half an hour on two cores; CLUSTER="1 2 6" for some of them
	$(BIN)/python -m tests.cluster $(CLUSTER) $(ARGS)

seeds: env ## SEEDS worlds of random faults in virtual time; the first that fails is named
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --unions $(SEEDS)

scenarios: env ## What a zone must bear, with real processes and small figures, one after the other: some minutes
	$(BIN)/python -m pytest -m scenario tests/integration/local

soaks: env ## The soak scenarios with small figures, and what else is too much for every run of the suite
	$(BIN)/python -m pytest -m "scenario or soak"

soak: env ## The full figures of what a zone must bear, about 40 minutes; SOAK="kills rolling" for some of it
	$(BIN)/python -m tests.soak $(SOAK)

bench: env ## Measure: BENCH=memory (by market and connection), catalogue, lanes, merge, session, simulator or spool; ARGS= its own
	$(BIN)/python -m tests.benchmarks.bench_$(BENCH) $(ARGS)

check: env ## Lint, format, types, floor plan
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: env ## Put every file into the house's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What a machine in the cluster needs: every deployable service's extra, nothing of tests or of a laptop.
IMAGE_EXTRAS := archiver connector coverage deduplicator doctor migrate operator poller registry rollout simulator
LOCKED := --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet

# Universal (every platform and Python from 3.11 on; the image's from 3.13 on), with hashes and without the address of any index.
lock: ## Resolve pyproject.toml anew into both locks; needs uv
	uv pip compile pyproject.toml --all-extras --python-version 3.11 $(LOCKED) --upgrade --output-file requirements.lock
	uv pip compile pyproject.toml $(addprefix --extra ,$(IMAGE_EXTRAS)) --python-version 3.13 $(LOCKED) --upgrade \
	  --constraint requirements.lock --output-file requirements.image.lock

clean: ## Remove what was made: environment, caches, data of local runs
	rm -rf $(VENV) var build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage ./*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
