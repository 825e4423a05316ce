# One command per task; each makes the environment first when it is missing or out of date.
#   make up                      everything on this machine, with a simulated market; Ctrl-C ends it
#   make up SYMBOLS=300 SPEED=5 DATE=2025-06-05 NO_UI=1 DATA_DIR=/tmp/qmt FAULT=price-spike@10:15
#   make test | lint | bench | chaos | installs | validate [RECORDINGS=folder] | lock | clean
.DEFAULT_GOAL := help
.PHONY: help install up test lint bench chaos installs validate lock clean
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin

# Python 3.10 to 3.13; PYTHON=… chooses one. The embedded Redis has wheels up to 3.12, so those come first.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)

UP_OPTIONS = $(if $(DATA_DIR),--data-dir '$(DATA_DIR)') $(if $(SYMBOLS),--symbols $(SYMBOLS)) $(if $(SPEED),--speed $(SPEED)) \
	$(if $(DATE),--date $(DATE)) $(if $(NO_UI),--no-ui) $(if $(FAULT),--fault '$(FAULT)')
RECORDINGS ?= $(QMT_RECORDINGS_DIR)

help:
	@sed -n '2,4s/^# *//p' Makefile

install: $(VENV)/.installed

# Packages come from wherever the machine's own pip configuration says.
$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.10-3.13 found: install one, or name it with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "$(PYTHON) cannot make virtual environments (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "installing packages into $(VENV) (first time: a minute or two)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $@

up: install
	@$(BIN)/qmt up $(UP_OPTIONS)

# The default suite, three workers (half of its time is waiting); what takes longer (marker slow) and the browser are stages of .ci/run.
# A worker takes a file at a time, in the order of conftest.py: the fixtures of a file are made once.
test: install
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && cp dagster.yaml "$$home" \
		&& echo "$(BIN)/dagster definitions validate -w workspace.yaml" \
		&& DAGSTER_HOME="$$home" $(BIN)/dagster definitions validate -w workspace.yaml

bench: install
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: install
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

# Each install by role in an empty environment: the wheel, the QMT machine, a client; Debian's own servers.
installs: install
	@.ci/installs $(ARGS)

validate: install
	@test -n "$(RECORDINGS)" || { echo "name the folder of recorded data: make validate RECORDINGS=folder (or set QMT_RECORDINGS_DIR)" >&2; exit 1; }
	@$(BIN)/qmt validate '$(RECORDINGS)'

# Newest versions that fit pyproject.toml, for every supported Python and platform.
lock: install
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 --no-header --no-emit-index-url \
		--no-emit-find-links --upgrade --quiet -o requirements.lock
	for role in windows/requirements-feed client/requirements-client; do \
		$(BIN)/python -m qmt_orchestration.extras $${role##*-} | $(BIN)/uv pip compile - -c requirements.lock --universal --python-version 3.10 \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet -o deploy/$$role.txt || exit 1; done

# The environment and what tools leave behind; never the data.
clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
	find qmt_orchestration qmt_orchestration_tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
