# Everything one does here, in one word each. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup changedetection run test test-fast journeys check fix migrate migration image smoke bench chaos verify
SHELL := /bin/sh
BIN := .venv/bin
# Test processes side by side, each with its own Redis and PostgreSQL: one more than cores, since tests mostly wait.
JOBS ?= $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )))
ROUNDS ?= 500
BASE ?= debian:bookworm-slim
IMAGE ?= millrace:dev
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' app/__init__.py)

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-15s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Virtual environment and servers for development
	@scripts/setup.sh dev
	@scripts/services.sh test

changedetection: ## A real changedetection.io for the tests that want one, 520 MB in .services
	@scripts/services.sh changedetection

run: ## Start everything here, index the docs, search them, stay until Ctrl-C
	@scripts/setup.sh run
	@scripts/services.sh run
	@exec $(BIN)/millrace up

test: setup ## The whole suite, on real Redis, PostgreSQL and SQLite
	@$(BIN)/pytest -n $(JOBS) --dist worksteal $(ARGS)

test-fast: setup ## The suite without what takes more than seconds
	@$(BIN)/pytest -n $(JOBS) --dist worksteal -m "not slow and not journey and not chaos" $(ARGS)

journeys: setup ## The promises, one file each, against real processes
	@$(BIN)/pytest -m journey $(ARGS)

check: ## ruff, mypy strict, import-linter, sizes, prose
	@scripts/setup.sh dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python scripts/check_sizes.py
	@$(BIN)/python scripts/check_prose.py

fix: ## Format, repair what ruff can, and write the reference pages
	@scripts/setup.sh dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python scripts/reference_pages.py

migrate: ## Bring the database of the settings to the newest schema
	@scripts/setup.sh run
	@$(BIN)/millrace migrate

migration: ## Write a migration from the models: make migration M="add a column"
	@scripts/setup.sh dev
	@test -n "$(M)" || { echo 'say what it does: make migration M="add a column"' >&2; exit 2; }
	@scripts/migration.sh "$(M)"

image: ## Build the container image: make image BASE=debian:bookworm-slim
	@docker build --build-arg BASE=$(BASE) --build-arg VERSION=$(VERSION) -t $(IMAGE) .

smoke: ## Build the image, run it as one container and as many, and hurt both; skipped without an engine
	@scripts/setup.sh dev
	@BASE=$(BASE) IMAGE=$(IMAGE) scripts/smoke.sh $(ARGS)

bench: ## The rows of the targets table, each beside its peer
	@scripts/setup.sh bench
	@scripts/services.sh test
	@$(BIN)/python -m tests.bench $(ARGS)

chaos: setup ## Kill, cut and freeze for ROUNDS rounds; nothing may be lost
	@$(BIN)/python -m tests.chaos --rounds $(ROUNDS) $(ARGS)
	@MILLRACE_LONG=1 $(BIN)/pytest -m chaos tests/journeys

verify: check setup changedetection ## What CI runs: the checks, the whole suite, and both layouts where an engine is at hand
	@JOBS=$(JOBS) scripts/suite.sh
	@BASE=$(BASE) IMAGE=$(IMAGE) scripts/smoke.sh
