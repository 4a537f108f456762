# celery-agents. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUNTIME := $(VENV)/.runtime
LOWEST := .venv-lowest
PEERS := .venv-bench
FRAMEWORKS := .venv-frameworks
NODE := .node
IS_NEW_ENOUGH = -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "$(PYTHON) is older than Python 3.11: choose another one with PYTHON=python3.12"; exit 1; }

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@awk 'BEGIN {FS = ":.*## "; printf "Usage: make \033[36m<target>\033[0m\n\n"} \
		/^[a-zA-Z_-]+:.*## / {printf "  \033[36m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(INSTALLED) ## Create .venv with everything for development (PYTHON=python3.12 chooses the Python)

# Files, so that pip runs again only when the dependencies have changed. What runs agents is a part of what develops
# them: `make test` completes the environment that `make demo` has made.
$(INSTALLED): pyproject.toml
	@$(PYTHON) $(IS_NEW_ENOUGH)
	@$(PYTHON) tools/install.py $(VENV) --dev
	@touch $@ $(RUNTIME)

$(RUNTIME): pyproject.toml
	@$(PYTHON) $(IS_NEW_ENOUGH)
	@$(PYTHON) tools/install.py $(VENV)
	@touch $@

.PHONY: demo
demo: $(RUNTIME) ## Kill a worker in the middle of an agent's execution, and see it go on elsewhere
	@$(BIN)/python -m celery_agents.demo

# Beside what runs agents, what the agent of the demo is written with.
$(VENV)/.llm: pyproject.toml $(RUNTIME)
	@$(PYTHON) tools/install.py $(VENV) --llm
	@touch $@

.PHONY: demo-llm
demo-llm: $(VENV)/.llm ## An agent of Pydantic AI at a support desk; with a key in the environment it asks a real model
	@$(BIN)/python -m examples.support_desk

# Beside what runs agents, what the page of the demo is served with.
$(VENV)/.web: pyproject.toml $(RUNTIME)
	@$(PYTHON) tools/install.py $(VENV) --web
	@touch $@

.PHONY: demo-web
demo-web: $(VENV)/.web ## A chat in the browser: streams, approvals, steering; WEB="--port 8080" and other options
	@$(BIN)/python -m examples.web_chat $(WEB)

.PHONY: check
check: $(INSTALLED) $(FRAMEWORKS)/.installed ## Format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy --exclude celery_agents/integrations
	@$(FRAMEWORKS)/bin/mypy -p celery_agents.integrations
	@$(FRAMEWORKS)/bin/mypy examples benchmarks tools
	@$(BIN)/lint-imports

.PHONY: format
format: $(INSTALLED) ## Format, and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Where Python is told to write no bytecode, as in many containers, each process would compile all that it imports.
BYTECODE = $(if $(PYTHONDONTWRITEBYTECODE),PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX="$(CURDIR)/$(1)/.bytecode")
# More processes than cores: most tests wait for other processes. Each brings its own servers.
PYTEST = $(call BYTECODE,$(VENV)) $(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup
PROCESSES ?= 3

# The frameworks that agents are written with are big, and nothing but their integrations needs them.
INTEGRATIONS = tests/integrations
# Each process imports them all, which takes ten seconds of one core: no more of them than cores.
INTEGRATIONS_PYTEST = $(call BYTECODE,$(FRAMEWORKS)) $(FRAMEWORKS)/bin/python -m pytest -n 2 \
	--dist loadgroup $(INTEGRATIONS)

$(FRAMEWORKS)/.installed: pyproject.toml
	@$(PYTHON) $(IS_NEW_ENOUGH)
	@$(PYTHON) tools/install.py $(FRAMEWORKS) --frameworks
	@touch $@

# The clients of AG-UI and of the AI SDK are npm packages.
$(NODE)/.installed: tests/http_clients/package.json tools/install_node.py $(INSTALLED)
	@$(BIN)/python tools/install_node.py $(NODE)
	@touch $@

.PHONY: node
node: $(NODE)/.installed ## Install Node and the packages of npm that the tests run

.PHONY: test
test: $(INSTALLED) $(NODE)/.installed test-integrations ## The tests for every commit: five stores whole, crash tests, Flower, the demo
	@$(PYTEST) -m "not full" --ignore $(INTEGRATIONS)

.PHONY: test-integrations
test-integrations: $(FRAMEWORKS)/.installed ## Of these, the agents of other frameworks as durable executions
	@$(INTEGRATIONS_PYTEST) -m "not full and not chaos"

.PHONY: test-all
test-all: $(INSTALLED) $(NODE)/.installed $(FRAMEWORKS)/.installed ## All tests, as before a release: further versions of servers, too
	@$(INTEGRATIONS_PYTEST) -m "not chaos"
	@$(PYTEST) --ignore $(INTEGRATIONS)

# The lowest versions are those of the lowest Python, where it is there.
LOWEST_PYTHON ?= $(shell command -v python3.11 || echo $(PYTHON))
LOWEST_PYTEST = $(call BYTECODE,$(LOWEST)) $(LOWEST)/bin/python -m pytest -n $(PROCESSES) --dist loadgroup -m "not full"
# The command line on the embedded broker, what is imported, what Celery shows, and a real worker on each kind of store.
LOWEST_TESTS = tests/celery_agents/test_imports.py tests/celery_agents/host/urls/test_censoring.py \
	tests/celery_agents/cli/test_cli_setup.py::test_the_plug_in_on_the_embedded_defaults \
	tests/crash/test_kill.py::test_another_worker_goes_on_at_once_after_the_whole_worker_was_killed
CONFORMANCE = tests/agent_statestore/test_conformance.py
LOWEST_STORES = $(addprefix $(CONFORMANCE)::,TestSQLite TestPostgreSQL TestMariaDB TestRedis)

$(LOWEST)/.installed: pyproject.toml
	@$(LOWEST_PYTHON) $(IS_NEW_ENOUGH)
	@$(LOWEST_PYTHON) tools/install.py $(LOWEST) --lowest
	@touch $@

.PHONY: test-lowest
test-lowest: $(LOWEST)/.installed ## A part of the tests, with the lowest versions that pyproject.toml allows
	@$(LOWEST_PYTEST) $(LOWEST_TESTS)
	@$(LOWEST_PYTEST) $(LOWEST_STORES) -k "token or trail"

ATTACKS = tests/celery_agents/lifecycle/test_door.py tests/celery_agents/host/test_misshapen_messages.py \
	tests/celery_agents/host/urls tests/agent_statestore/test_damage.py \
	$(patsubst %,$(CONFORMANCE)::Test%::test_no_text_in_the_place_of_another_stops_others,\
		MemoryStore SQLite PostgreSQL PostgreSQL18 MariaDB Redis Valkey RedisCluster Hybrid)

.PHONY: attack
attack: $(INSTALLED) ## All hostile input that the tests know, counted: answers, messages, damaged records, URLs
	@$(PYTEST) $(ATTACKS)

.PHONY: chaos
chaos: $(INSTALLED) $(FRAMEWORKS)/.installed ## Workers killed at random: 100 executions, and 50 deaths per framework
	@$(BIN)/python -m pytest tests/crash -m chaos -s -p no:xdist -o addopts=
	@$(FRAMEWORKS)/bin/python -m pytest $(INTEGRATIONS) -n 0 -m chaos -s

# What executions are compared with is big, and nothing else needs it.
$(PEERS)/.installed: pyproject.toml
	@$(PYTHON) $(IS_NEW_ENOUGH)
	@$(PYTHON) tools/install.py $(PEERS) --bench
	@touch $@

.PHONY: bench
bench: $(PEERS)/.installed ## Measure steps, executions and workers, as ratios (BENCH=--quick for a first impression)
	@$(PEERS)/bin/python -m benchmarks $(BENCH)

.PHONY: bench-frameworks
bench-frameworks: $(FRAMEWORKS)/.installed ## Measure what a framework's agent costs when it is durable, and LangGraph's threads
	@$(FRAMEWORKS)/bin/python -m benchmarks frameworks threads

.PHONY: clean
clean: ## Remove the virtual environment and what the embedded defaults have stored
	@rm -rf $(VENV) $(LOWEST) $(PEERS) $(FRAMEWORKS) $(NODE) tests/http_clients/node_modules .agents .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
