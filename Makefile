# Everything a person or CI calls. "make help" is made from the comments after ##.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Index of torch wheels; empty: the default index. For the CPU build give the address that PyTorch's install page names.
TORCH_INDEX ?=
PIP := $(BIN)/pip --disable-pip-version-check
PINS := docker/requirements-run.txt docker/requirements-dev.txt
STAMP := $(VENV)/.made
DOCKER_BUILD ?= docker build
SPHINX = $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs -d build/site-cache

.DEFAULT_GOAL := help
.PHONY: help setup demo matrix converse mtbench test test-slow test-oldest test-newest dist check golden crash docs links lock audit sbom image-cpu image-cuda clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with the pinned packages and llmjobs itself.

$(STAMP): $(PINS) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: there is no $(PYTHON) here; give the Python that you have: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; give another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Fetching the pinned packages: several minutes and 1 to 5 GB of disk, most of it torch (least with TORCH_INDEX of its CPU build)"
	$(PIP) install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(addprefix -r ,$(PINS))
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	@touch $@

demo: setup ## Evaluate the demo models and write results/demo/report.pdf.
	$(BIN)/llmjobs run manifests/demo.yaml

matrix: setup ## Time the demo model on every device and precision of this machine.
	$(BIN)/llmjobs matrix manifests/matrix.yaml

converse: setup ## Scripted conversations of the demo model, with history and without.
	$(BIN)/llmjobs converse manifests/chat.yaml

mtbench: setup ## MT-Bench with demo models as agents and judge.
	$(BIN)/llmjobs mtbench manifests/mtbench.yaml

# Processes that tests run in side by side; PARALLEL= runs them in one.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile

test: setup ## Run the tests.
	$(BIN)/python -m pytest -q -m "not slow" $(PARALLEL)

test-slow: setup ## Run the slower tests: large models, kills, the wheel.
	$(BIN)/python -m pytest -q -m slow

# What tests need besides llmjobs, in any version that goes with the oldest ones; replacements for pins in OLDEST.
TEST_TOOLS := pytest pytest-timeout hypothesis setuptools openai statsmodels ipykernel nbclient
OLDEST ?=

test-oldest: ## Run the tests with the lowest versions that pyproject.toml promises; OLDEST="NAME==VERSION" replaces one.
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	$(PYTHON) docker/lowest.py serve ray $(OLDEST) >.venv-oldest/lowest.txt
	.venv-oldest/bin/pip install --quiet --upgrade $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r .venv-oldest/lowest.txt $(TEST_TOOLS)
	.venv-oldest/bin/pip install --quiet --no-deps --editable .
	.venv-oldest/bin/pip check
	.venv-oldest/bin/python -m pytest -q -m "not slow" -o filterwarnings=default --ignore tests/house --ignore tests/docs --ignore tests/packaging

# Warnings stay errors here: what a new version deprecates is what this is for.
NEWEST ?=

test-newest: ## Run the tests with the newest versions that pyproject.toml allows, before 'make lock'; NEWEST="NAME==VERSION" holds one back.
	test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[serve,ray]' $(NEWEST) $(TEST_TOOLS)
	.venv-newest/bin/pip check
	.venv-newest/bin/python -m pytest -q -m "not slow" --ignore tests/house --ignore tests/docs --ignore tests/packaging

dist: setup ## Build the sdist and the wheel below dist/ and check what they say of themselves.
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

check: setup ## Lint, types, import layers and help texts, in seconds.
	$(BIN)/ruff check --output-format concise
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q --no-header tests/house

golden: setup ## Make the golden files anew; read the diff before you commit it.
	for script in $(sort $(wildcard tests/*/make_*golden.py)); do $(BIN)/python $$script || exit 1; done

crash: setup ## Kill jobs at random moments and file operations, and compare: KILLS=1000 over all jobs.
	$(BIN)/python tests/crash/campaign.py --kills $(or $(KILLS),100)

docs: setup ## Make the generated pages anew, then the site in build/site, its links checked.
	for script in $(sort $(wildcard docs/make_*.py)); do $(BIN)/python $$script || exit 1; done
	$(SPHINX) -b html -E -a . build/site

links: setup ## Ask for every external address in the documentation; needs the network.
	$(SPHINX) -b linkcheck . build/links

lock: ## Write the pins anew from what .venv holds now.
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python docker/lock.py

audit: sbom ## Check the SBOM, then the pins against the known vulnerabilities; needs the network.
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip --disable-pip-version-check install --quiet -r docker/requirements-audit.txt
	@.venv-audit/bin/python docker/audit.py build/sbom.json $(PINS)

sbom: setup ## Write build/sbom.json: what .venv and the system hold, as CycloneDX.
	$(BIN)/python docker/sbom.py build/sbom.json

image-cpu: ## Build llmjobs:cpu.
	$(DOCKER_BUILD) -f Dockerfile.cpu $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) -t llmjobs:cpu .

image-cuda: ## Build llmjobs:cuda (some gigabytes).
	$(DOCKER_BUILD) -f Dockerfile.cuda $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) -t llmjobs:cuda .

clean: ## Remove .venv and caches; results stay.
	rm -rf $(VENV) .venv-audit .venv-clean .venv-oldest .venv-newest .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
