# Every target sets up what it needs: `make demo` and `make test` are all there is to type.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
BIN := .venv/bin
STARTED := $(shell date +%s)

.NOTPARALLEL:
.PHONY: help setup demo test lint format types layers docs unit process security matrix live lock generate changelog clean

help: ## show the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with everything that AgentForge needs; quick when nothing changed
	@find_python() { \
	  for each in python3 python3.13 python3.12 python3.11; do \
	    if "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$$each"; return; fi; \
	  done; \
	}; \
	python=$$(find_python); \
	if [ -z "$$python" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 python3-venv; \
	  python=$$(find_python); \
	fi; \
	if [ -z "$$python" ]; then \
	  echo "error: there is no Python 3.11 or later" >&2; \
	  echo "hint: install one with its venv module: apt-get install python3 python3-venv (as root)" >&2; \
	  exit 1; \
	fi; \
	"$$python" scripts/setup.py

# The clock of the demo starts with the clone where this is the first thing done with it.
demo: ## one agent on three frameworks, on the embedded model, without any key
	@since=$(STARTED); fresh=; \
	if [ ! -e $(BIN)/agentforge ] && [ -f .git/description ]; then \
	  cloned=$$(stat -c %Y .git/description); \
	  if [ $$((since - cloned)) -lt 900 ]; then since=$$cloned; fresh=1; fi; \
	fi; \
	$(MAKE) --no-print-directory setup; \
	AGENTFORGE_DEMO_SINCE=$$since AGENTFORGE_DEMO_FRESH=$$fresh $(BIN)/agentforge demo

test: lint types layers docs ## all checks and all tests, cheap ones first
	@echo "== pytest: unit, process, security, live"
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
	  tests/unit tests/process tests/security tests/live

lint: setup ## ruff: rules and format
	@echo "== ruff"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: setup ## mypy --strict
	@echo "== mypy"
	@$(BIN)/mypy --strict

layers: setup ## which layer may import which
	@echo "== import-linter"
	@$(BIN)/lint-imports

docs: setup ## build the documentation into docs/_build/html; a warning is an error
	@echo "== sphinx"
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

unit: setup ## tests without processes
	@$(BIN)/pytest tests/unit

process: setup ## tests with real workers and environments
	@$(BIN)/pytest tests/process

security: setup ## attacks on the fence, on a machine of their own
	@$(BIN)/pytest tests/security

# The suite of adapters is run by `agentforge compat`, whose report is the data of docs/reference/compatibility.md; what
# passed as it is now is not tried again. Pytest has the tests that `make test` leaves out besides.
matrix: setup ## every release of every framework: the compatibility matrix, and all tests of single releases
	@mkdir -p .matrix && touch .matrix/agentforge.toml
	@status=0; \
	AGENTFORGE_HOME="$${AGENTFORGE_TEST_HOME:-$(CURDIR)/.agentforge-test}" AGENTFORGE_HOST=inline \
	  $(BIN)/agentforge compat -C .matrix --only-missing --json > .matrix/compatibility.jsonl || status=$$?; \
	if [ $$status -le 1 ] && [ -s .matrix/compatibility.jsonl ]; then \
	  cp .matrix/compatibility.jsonl docs/reference/compatibility.jsonl; \
	  $(BIN)/python docs/generate.py; \
	fi; \
	exit $$status
	@$(BIN)/pytest -m "matrix and not conformance" tests/process

live: setup ## tests against the real package index
	@$(BIN)/pytest tests/live

format: setup ## put the code into its form
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

generate: setup ## write the generated reference pages anew
	@$(BIN)/python docs/generate.py

lock: setup ## resolve locks/dev.txt anew, keeping the versions that still fit
	@$(BIN)/uv pip compile pyproject.toml --extra local --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --no-emit-package inferloop-agentforge-worker \
	  --no-emit-package inferloop-agentforge-adapters \
	  --no-emit-package inferloop-agentforge-conformance \
	  --quiet -o locks/dev.txt

changelog: setup ## show what the fragments in changes/ make of the changelog
	@$(BIN)/towncrier build --draft --version next

clean: ## remove what was built here, .venv included
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache docs/_build
