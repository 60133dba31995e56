# What a person calls; `make help` lists it. Everything runs in .venv, made on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := build/uv/bin/uv
LOCKED := --no-deps --require-hashes -r requirements/dev.txt

.DEFAULT_GOAL := help
.PHONY: help venv lint format crds lock ready unit integration e2e attacks test bench demo clean \
	tools cluster-smoke cert-manager engines chaos load docs

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## the virtual environment, from hash-locked requirements

$(STAMP): requirements/dev.txt $(UV)
	@# Where python3-venv is missing, the first try leaves a python without pip.
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@# The lock is the whole answer: a pip that resolves by itself takes a newer release of what one
	@# distribution asks an extra of (pydantic[email]), and then refuses it. `check` says it is complete.
	@# uv does in seconds what takes pip most of a minute, but knows nothing of pip's configuration:
	@# where packages come by that alone, pip has them.
	$(UV) pip install --quiet --python $(BIN)/python $(LOCKED) || \
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile $(LOCKED)
	$(BIN)/pip check --disable-pip-version-check
	@# The package itself is used from the checkout, without a build.
	@$(BIN)/python -c "import site, pathlib; pathlib.Path(site.getsitepackages()[0], 'trainseal.pth').write_text(str(pathlib.Path('operator').resolve()))"
	@printf '#!%s\nimport sys\nfrom trainseal.cli.main import main\nsys.exit(main())\n' "$$(pwd)/$(BIN)/python" > $(BIN)/trainseal && chmod +x $(BIN)/trainseal
	touch $@

lint: $(STAMP) ## format, lint and security lint, types, import contract, stale generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m trainseal.api.crd --check crds
	$(BIN)/python -m trainseal.api.crd --check charts/trainseal/files/crds
	$(BIN)/python -m trainseal.api.reference --check
	$(BIN)/python -m trainseal.api.findingspage --check
	$(BIN)/python -m trainseal.cli.reference --check
	$(BIN)/python -m trainseal.cli.metrics --check

format: $(STAMP) ## rewrite files in the project's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

crds: $(STAMP) ## generate crds/ and the reference pages from the models
	$(BIN)/python -m trainseal.api.crd crds
	$(BIN)/python -m trainseal.api.crd charts/trainseal/files/crds
	$(BIN)/python -m trainseal.api.reference
	$(BIN)/python -m trainseal.api.findingspage
	$(BIN)/python -m trainseal.cli.reference
	$(BIN)/python -m trainseal.cli.metrics

# uv, by its own lock, in a folder of its own: it is no part of what it installs.
COMPILE := $(UV) pip compile --quiet --universal --no-header --generate-hashes

$(UV): requirements/lock.txt
	test -x build/uv/bin/pip || $(PYTHON) -m venv --clear build/uv
	build/uv/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/lock.txt
	touch $@

lock: $(UV) ## bring requirements/ in line with pyproject.toml; pins stay, unless UPGRADE=--upgrade
	$(COMPILE) $(UPGRADE) pyproject.toml -o requirements/run.txt
	$(COMPILE) $(UPGRADE) --extra dev -c requirements/run.txt pyproject.toml -o requirements/dev.txt
	$(COMPILE) $(UPGRADE) --group docs --fork-strategy fewest -o requirements/docs.txt
	$(COMPILE) $(UPGRADE) --group build -c requirements/dev.txt -o requirements/build.txt
	$(COMPILE) $(UPGRADE) --group lock -o requirements/lock.txt

# In a folder of its own: what makes the site is no part of what is tested.
DOCS := build/docs
$(DOCS)/.installed: requirements/docs.txt $(UV)
	test -x $(DOCS)/venv/bin/pip || $(PYTHON) -m venv --clear $(DOCS)/venv
	$(UV) pip install --quiet --python $(DOCS)/venv/bin/python --no-deps --require-hashes -r requirements/docs.txt || \
	$(DOCS)/venv/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/docs.txt
	touch $@

docs: $(DOCS)/.installed ## the documents as a site in build/docs/site; a broken link fails (half a minute)
	$(DOCS)/venv/bin/sphinx-build --nitpicky --fail-on-warning --keep-going --quiet -E -j 2 \
		-b dirhtml -d $(DOCS)/doctrees docs $(DOCS)/site
	@echo "$(DOCS)/site/index.html"

ready: $(STAMP) ## say what this machine lacks for a cluster, before anything long begins
	$(BIN)/python -m tests.cluster check

tools: $(STAMP) ## build the test cluster's tools into the cache (25 to 30 minutes, once)
	$(BIN)/python -m tests.cluster build-tools

unit: $(STAMP) ## tests that talk to nothing; seconds
	$(BIN)/pytest -q -n auto tests/unit

integration: $(STAMP) ## tests against a real API server and real registries
	$(BIN)/python -m tests.cluster build-tools integration
	$(BIN)/pytest -q -n 2 --dist loadfile tests/integration

e2e: tools ## tests on a real cluster
	$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder tests/e2e

test: ready unit tools ## all tests; those of real clusters and API servers mostly wait, so side by side
	@# Three processes keep two cores busy; with a fourth each cluster waits for the others.
	$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder --durations=20 tests/e2e tests/integration

attacks: tools ## carry out every attack on a real cluster; writes docs/reference/detection.md
	$(BIN)/pytest -q tests/attacks --detection docs/reference/detection.md

cluster-smoke: tools ## prove on this machine what tests/cluster promises (two minutes)
	$(BIN)/python -m tests.cluster.smoke

cert-manager: tools ## the chart with a real cert-manager, on a cluster of its own (five minutes)
	$(BIN)/python -m tests.cluster build-tools cert-manager
	$(BIN)/pytest -q tests/certmanager

engines: tools ## engines of others, each with its own controller, on a cluster of their own (half an hour)
	$(BIN)/python -m tests.cluster build-tools engines
	timeout --signal=INT --kill-after=60 3600 $(BIN)/pytest -q -n 0 tests/engines

# How long the storm lasts, at most 600 seconds; SEED=NUMBER repeats a run that printed it.
CHAOS_SECONDS ?= 180

chaos: tools ## kill webhook, controller, API server, registry while jobs come (ten minutes, at most 20)
	timeout --signal=INT --kill-after=60 1200 $(BIN)/pytest -q -n 0 tests/chaos --seconds $(CHAOS_SECONDS) $(if $(SEED),--seed $(SEED))

load: tools ## many admissions at once while replicas and the API server end (at most ten minutes)
	timeout --signal=INT --kill-after=60 600 $(BIN)/pytest -q -n 0 tests/load

bench: tools ## measure on a quiet machine; writes the tables of docs/reference/figures.md
	$(BIN)/python -m bench --page docs/reference/figures.md

demo: tools ## a signed job trains on a real cluster, and five attempts against it fail
	$(BIN)/python -m tests.demo

clean: ## take down the clusters that this checkout made, and remove what was made in it
	@# Clusters are made, and taken down, by what is in the virtual environment.
	@if test -e $(STAMP); then $(BIN)/python -m tests.cluster down --checkout; fi
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist $(VENV)
