# All the commands for people and CI. "make help" prints the comments after ##.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Index of torch wheels; the default index if empty. For CPU wheels, use the address from PyTorch's install page.
TORCH_INDEX ?=
PIP := $(BIN)/pip --disable-pip-version-check
WHEELS = $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
PINS := docker/requirements-run.txt docker/requirements-dev.txt
STAMP := $(VENV)/.made
DOCKER_BUILD ?= docker build
SPHINX = $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs -d build/site-cache

.DEFAULT_GOAL := help
.PHONY: help setup demo matrix converse mtbench test test-slow test-oldest test-newest dist check golden crash docs links lock audit sbom image-cpu image-cuda clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv with the pinned packages and llmjobs itself.

$(STAMP): $(PINS) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) was not found; name the Python to use, for example: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; name a newer Python, for example: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) has no venv module; on Debian, run: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing $$(cat $(PINS) | grep -c ==) pinned packages into $(VENV), which takes several minutes. On disk: 2.4 GB with torch for the CPU, 5 GB or more with torch for CUDA."
	@echo "(1/4) torch, the largest; TORCH_INDEX chooses its build"
	@$(PIP) install --no-deps $(WHEELS) "$$(grep '^torch==' docker/requirements-run.txt)"
	@echo "(2/4) the other packages that llmjobs needs: $$(grep -c == docker/requirements-run.txt), 1.3 GB on disk"
	@$(PIP) install --quiet $(WHEELS) -r docker/requirements-run.txt
	@echo "(3/4) the tools for tests and documentation: $$(grep -c == docker/requirements-dev.txt), 0.4 GB on disk"
	@$(PIP) install --quiet $(WHEELS) $(addprefix -r ,$(PINS))
	@echo "(4/4) llmjobs itself"
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	@touch $@

demo: setup ## Evaluate the demo models and write results/demo/report.pdf.
	$(BIN)/llmjobs run manifests/demo.yaml

matrix: setup ## Measure the demo model on every device and precision of this machine.
	$(BIN)/llmjobs matrix manifests/matrix.yaml

converse: setup ## Run scripted conversations with the demo model, with and without history.
	$(BIN)/llmjobs converse manifests/chat.yaml

mtbench: setup ## Run MT-Bench with demo models as agents and a rule-based judge.
	$(BIN)/llmjobs mtbench manifests/mtbench.yaml

# How pytest runs tests in parallel; PARALLEL= runs them in one process.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: setup ## Run the tests.
	$(BIN)/python -m pytest -q -m "not slow" $(PARALLEL)

test-slow: setup ## Run the slow tests: large models, kills, the wheel.
	$(BIN)/python -m pytest -q -m slow $(PARALLEL)

# Packages that the tests need in addition, in any version that works with the oldest ones; OLDEST replaces pins.
TEST_TOOLS := pytest pytest-timeout hypothesis setuptools openai statsmodels ipykernel nbclient
OLDEST ?=

UV = $(BIN)/uv pip compile --quiet --no-header --no-annotate pyproject.toml

test-oldest: setup ## Run the tests with the lowest versions that pyproject.toml allows; OLDEST="NAME==VERSION" replaces one.
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	printf '%s\n' $(OLDEST) >.venv-oldest/replaced.txt
	$(UV) --python .venv-oldest/bin/python --extra serve --extra ray --resolution lowest-direct --no-deps --override .venv-oldest/replaced.txt -o .venv-oldest/lowest.txt
	.venv-oldest/bin/pip install --quiet --upgrade $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r .venv-oldest/lowest.txt $(TEST_TOOLS)
	.venv-oldest/bin/pip install --quiet --no-deps --editable .
	.venv-oldest/bin/pip check
	.venv-oldest/bin/python -m pytest -q -m "not slow" -o filterwarnings=default --ignore tests/house --ignore tests/docs --ignore tests/packaging

# Warnings are errors here, because this target is meant to find deprecations.
NEWEST ?=

test-newest: ## Run the tests with the newest versions that pyproject.toml allows, before 'make lock'; NEWEST="NAME==VERSION" replaces one.
	test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[serve,ray]' $(NEWEST) $(TEST_TOOLS)
	.venv-newest/bin/pip check
	.venv-newest/bin/python -m pytest -q -m "not slow" --ignore tests/house --ignore tests/docs --ignore tests/packaging

dist: setup ## Build the sdist and the wheel in dist/ and check their metadata.
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

check: setup ## Check style, types, import layers and help texts; takes seconds.
	$(BIN)/ruff check --output-format concise
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q --no-header tests/house

golden: setup ## Rewrite the golden files; read the diff before you commit it.
	for script in $(sort $(wildcard tests/*/make_*golden.py)); do $(BIN)/python $$script || exit 1; done

crash: setup ## Kill jobs at random file operations and compare the results; KILLS=1000 sets how often.
	$(BIN)/python tests/crash/campaign.py --kills $(or $(KILLS),100)

docs: setup ## Rewrite the generated pages, then build the site in build/site and check its links.
	for script in $(sort $(wildcard docs/make_*.py)); do $(BIN)/python $$script || exit 1; done
	$(SPHINX) -b html -E -a . build/site

links: setup ## Check the external links of the documentation; needs the network.
	$(SPHINX) -b linkcheck . build/links

# The pins serve every build of torch: local version labels (+cpu) and the packages of its CUDA builds are left out.
LOCK = $(UV) --python $(BIN)/python --constraints build/installed.txt
NO_CUDA := grep -vE '^(cuda-|nvidia-[^m]|triton=)'

lock: ## Rewrite the pins from the packages in .venv.
	mkdir -p build
	$(PIP) freeze --exclude-editable | sed 's/+[^ ]*//' >build/installed.txt
	$(LOCK) --extra serve --extra ray -o build/run.txt
	$(LOCK) --extra dev -o build/all.txt
	echo '# Written by "make lock"; exact versions that the tests passed with.' | tee docker/requirements-dev.txt >docker/requirements-run.txt
	$(NO_CUDA) build/run.txt >>docker/requirements-run.txt
	$(NO_CUDA) build/all.txt | grep -vxFf build/run.txt >>docker/requirements-dev.txt

audit: sbom ## Check the SBOM, then check the pins for known vulnerabilities; needs the network.
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip --disable-pip-version-check install --quiet -r docker/requirements-audit.txt
	.venv-audit/bin/python docker/check_sbom.py build/sbom.json
	.venv-audit/bin/pip-audit --strict --progress-spinner off --disable-pip --no-deps $(addprefix -r ,$(PINS))

sbom: setup ## Write build/sbom.json, a CycloneDX list of the packages in .venv and the system.
	$(BIN)/python docker/sbom.py build/sbom.json

image-cpu: ## Build the image llmjobs:cpu.
	$(DOCKER_BUILD) -f Dockerfile.cpu $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) -t llmjobs:cpu .

image-cuda: ## Build the image llmjobs:cuda (6 GB).
	$(DOCKER_BUILD) -f Dockerfile.cuda $(if $(TORCH_INDEX),--build-arg TORCH_INDEX=$(TORCH_INDEX)) -t llmjobs:cuda .

clean: ## Remove .venv and caches; keep the results.
	rm -rf $(VENV) .venv-audit .venv-clean .venv-oldest .venv-newest .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
