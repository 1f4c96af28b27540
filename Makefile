# The two commands: `make up` starts the whole cloud on this machine, `make test` needs only Python and git.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python

.PHONY: up down test check e2e fix fuzz soak chaos bench stage

up: .venv/installed
	@$(RUN) -m local up

down: .venv/installed
	@$(RUN) -m local down

test: .venv/installed
	@$(BIN)/pytest

check: .venv/installed stage
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

e2e: .venv/installed
	@$(BIN)/pytest tests/e2e

fix: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: .venv/installed
	$(BIN)/pytest tests/unit --hypothesis-profile=fuzz --timeout=3600

soak: .venv/installed
	$(BIN)/pytest tests/soak -s

ROUNDS ?= 200
chaos: .venv/installed stage
	@$(RUN) -m tests.chaos --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) $(if $(PLANT),--plant $(PLANT))

OUT ?= .cloud/bench.json
bench: .venv/installed
	@$(RUN) -m bench --out $(OUT) $(NAMES) $(if $(COMPARE),--compare $(COMPARE)) $(if $(RESULTS),--results $(RESULTS))

stage:
	@$(RUN) -m local.staging

# One virtual environment for everything, exactly as the lock file has it.
.venv/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "python3-venv is missing: installing it"; \
	  apt-get update -q && apt-get install -qy python3-venv && $(PYTHON) -m venv .venv; }
	@echo "installing what requirements.lock names"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@
