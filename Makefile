# Everything runs from .venv, which whatever target needs it sets up first.
# The machine needs Python 3.11 or newer, and make.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.stamp

# Another interpreter: make venv PYTHON=/path/to/python
PYTHON     ?=
CANDIDATES := $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3)
SUITABLE   := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))

# Bytecode of everything, Airflow and the standard library too, in a place that can be written: Airflow then starts in half the time.
export PYTHONPYCACHEPREFIX := $(CURDIR)/$(VENV)/pycache
# Also where the environment, as in many containers, says that none is to be written.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help venv test compiled test-under-load unit perf mutants e2e fuzz chaos events short-runs older newer upgrade production lowest dist newcomer release matrix coverage docs pre-commit lint format demo demo-ui bench browser postgresql clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP) ## Set up .venv: Airflow, this package (editable) and the tools, at the versions of constraints.txt
	@echo "$(VENV) is ready"

# Most tests wait for something: so there are more of them at once than the machine has cores. What shares an Airflow runs
# in one process, in the order of tests/harness/groups.py.
WORKERS  := 6
PARALLEL  = -n $(WORKERS)
# Repeats what chance chose in another run.
SEEDED    = $(if $(SEED),--hypothesis-seed=$(SEED))

test: $(STAMP) browser postgresql ## Lint, then run all tests: unit, integration and end to end. SEED=… repeats a run's choices
	@$(MAKE) -j 2 lint compiled
	@$(BIN)/python -m pytest $(PARALLEL) $(SEEDED)

# Bytecode of what all processes of the tests import: on a fresh clone each of the many that begin at the same time would
# make it for itself. Lint leaves the second core idle meanwhile.
compiled: $(STAMP)
	@$(BIN)/python -m tests.harness.compiled

test-under-load: $(STAMP) ## The same on a busy machine: with four busy loops beside it
	@$(BIN)/python -m tests.under_load $(MAKE) test

unit: $(STAMP) ## Run the unit tests only, without the large cases
	@$(BIN)/python -m pytest -n 2 $(SEEDED) -m "unit and not perf" tests/unit

perf: $(STAMP) ## Run the large cases only
	@$(BIN)/python -m pytest $(SEEDED) -m perf

e2e: $(STAMP) browser ## Run the end-to-end tests only, against a whole running Airflow
	@$(BIN)/python -m pytest $(PARALLEL) $(SEEDED) -m e2e

fuzz: $(STAMP) ## Answer every operation as a hostile server would, in both clients: some 10 minutes at most. SEED=2 for another order, SECONDS=60, ONLY=get_report
	@$(BIN)/python -m tests.fuzz --seed $(or $(SEED),1) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ONLY),--only $(ONLY))

chaos: $(STAMP) ## Kill workers and triggerers, lose responses, clear tasks: 270 tasks in some six minutes, then audit the result. SEED=2 for others
	@$(BIN)/python -m tests.chaos --seed $(or $(SEED),1) $(if $(TASKS),--tasks $(TASKS))

events: $(STAMP) ## Watch 250 runs while the triggerer that does so is killed six times, then compare events with the list. DATABASE=postgresql
	@$(BIN)/python -m tests.events --seed $(or $(SEED),1) --database $(or $(DATABASE),sqlite) $(if $(RUNS),--runs $(RUNS)) $(if $(KILLS),--kills $(KILLS))

short-runs: $(STAMP) ## Count the tasks that Airflow fails as their runs are over too soon: 100 runs of 0 to 5 s, without and with event_delay
	@$(BIN)/python -m tests.short_runs $(if $(RUNS),--runs $(RUNS)) $(if $(DELAYS),--delays $(DELAYS))

older: $(STAMP) ## Run all platforms on the last Airflows before 3.3: 3.0, 3.1 and 3.2, each in an environment of its own. VERSION=3.0 for one
	@$(BIN)/python -m tests.older $(VERSION)

upgrade: $(STAMP) ## Change versions under running tasks: runs started by the first version and finished by this one, and back. COMMIT=… for another
	@$(BIN)/python -m tests.upgrades $(if $(COMMIT),--commit $(COMMIT))

# Celery and its drivers stay out of .venv.
PRODUCTION       := .production
PRODUCTION_STAMP := $(PRODUCTION)/.stamp

production: $(PRODUCTION_STAMP) ## Two of each part of Airflow on PostgreSQL, PgBouncer, Redis and Celery, under faults of several machines. SEED=2, TASKS=20
	@PYTHONPYCACHEPREFIX=$(CURDIR)/$(PRODUCTION)/pycache $(PRODUCTION)/venv/bin/python -m tests.production \
	    --seed $(or $(SEED),1) $(if $(TASKS),--tasks $(TASKS))

$(PRODUCTION_STAMP): tests/production/requirements.txt constraints.txt pyproject.toml | $(STAMP)
	@echo "Making $(PRODUCTION)/venv: this package, Celery and drivers"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PRODUCTION)/venv
	@$(BIN)/uv pip install --quiet --python $(PRODUCTION)/venv/bin/python --constraint constraints.txt \
	    --build-constraint constraints.txt --editable '.[sandbox]' --requirement tests/production/requirements.txt
	@touch $(PRODUCTION_STAMP)

newer: $(STAMP) ## Run all platforms on the newest Airflow of 3.4 and later, in an environment of its own, once it can be installed
	@$(BIN)/python -m tests.older newer

lowest: $(STAMP) ## Run the unit and transport tests on the lowest versions that pyproject.toml allows, in an environment of its own
	@$(BIN)/python -m tests.lowest $(TESTS)

dist: $(STAMP) ## Build sdist and wheel, and try them: metadata, the wheel alone with its sandbox and a DAG, the sdist's tests. PROJECT_URL=… for a release
	@$(BIN)/python -m tests.dist

newcomer: $(STAMP) ## Do what docs/quickstart.md says, with an Airflow and the wheel of `make dist` alone
	@$(BIN)/python -m tests.newcomer

release: $(STAMP) ## Check that a version can be published: changelog, version, tag, files. VERSION=0.2.0 PROJECT_URL=https://…; publishes nothing
	@$(BIN)/python -m tests.release $(VERSION)

matrix: $(STAMP) ## Run unit and integration tests on each pair of Python and Airflow. PYTHONS="3.12 3.13" AIRFLOWS="3.0 3.3" TESTS=… for some
	@$(BIN)/python -m tests.matrix --pythons $(or $(PYTHONS),3.11 3.12 3.13 3.14) --airflows $(or $(AIRFLOWS),3.0 3.1 3.2 3.3) -- $(TESTS)

coverage: $(STAMP) ## Measure which lines the unit and integration tests execute, those that other processes execute with them
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m coverage run -m pytest -q $(PARALLEL) $(or $(TESTS),tests/unit tests/sandbox tests/integration)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

pre-commit: $(STAMP) ## Check style, words and types at each commit from now on
	@$(BIN)/pre-commit install

# The tests of what is in Airflow's UI need one; where there is none, and none can be had, they say so and are skipped.
browser:
	@if ! command -v chromium-headless-shell >/dev/null && ! command -v chromium >/dev/null \
	    && ! command -v chromium-browser >/dev/null && [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing chromium, for the tests in a browser"; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    { apt-get -qq update && { apt-get -qq install -y --no-install-recommends chromium-headless-shell \
	        || apt-get -qq install -y --no-install-recommends chromium; }; } >/dev/null 2>&1 \
	        || echo "It could not be installed: those tests are skipped"; \
	fi

# The same for what Airflow stores, whose database is often PostgreSQL.
postgresql:
	@if ! command -v postgres >/dev/null && ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 \
	    && [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing PostgreSQL, for the tests of what is stored in it"; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    { apt-get -qq update && apt-get -qq install -y --no-install-recommends postgresql; } >/dev/null 2>&1 \
	        || echo "It could not be installed: those tests are skipped"; \
	fi

lint: $(STAMP) ## Check style, formatting, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(STAMP) ## Repair what style and formatting checks can repair by themselves
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

demo: $(STAMP) ## Run the example DAGs against the sandbox, in the terminal
	@$(BIN)/python -m demo

demo-ui: $(STAMP) ## The same with the Airflow UI, to click through
	@$(BIN)/python -m demo --ui

# The others that it is measured beside stay out of .venv, and .venv out of their way.
BENCH       := .bench
BENCH_STAMP := $(BENCH)/.stamp

bench: $(BENCH_STAMP) ## Measure what waiting costs, beside other providers; writes benchmarks/RESULTS.md. QUICK=1 for one round
	@PYTHONPYCACHEPREFIX=$(CURDIR)/$(BENCH)/pycache $(BENCH)/bin/python -m benchmarks $(if $(QUICK),--quick) $(if $(NOTE),--note "$(NOTE)")

$(BENCH_STAMP): benchmarks/requirements.txt benchmarks/overrides.txt constraints.txt pyproject.toml | $(STAMP)
	@echo "Making $(BENCH): this package and those that it is measured beside"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(BENCH)
	@$(BIN)/uv pip install --quiet --python $(BENCH)/bin/python --constraint constraints.txt --build-constraint constraints.txt \
	    --override benchmarks/overrides.txt --editable . --requirement benchmarks/requirements.txt
	@touch $(BENCH_STAMP)

# Its tools stay out of .venv.
MUTANTS       := .mutants
MUTANTS_STAMP := $(MUTANTS)/.stamp

mutants: $(MUTANTS_STAMP) ## Make 400 faults, one at a time, and list those that no test finds. COUNT=50, SEED=2 for others; goes on where it was stopped
	@PYTHONPYCACHEPREFIX=$(CURDIR)/$(MUTANTS)/pycache $(MUTANTS)/venv/bin/python -m tests.mutation --show \
	    --seed $(or $(SEED),1) --count $(or $(COUNT),400)

$(MUTANTS_STAMP): tests/mutation/requirements.txt constraints.txt pyproject.toml | $(STAMP)
	@echo "Making $(MUTANTS)/venv: this package, its tests and what makes mutants"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(MUTANTS)/venv
	@$(BIN)/uv pip install --quiet --python $(MUTANTS)/venv/bin/python --constraint constraints.txt \
	    --build-constraint constraints.txt --editable '.[test]' --requirement tests/mutation/requirements.txt
	@touch $(MUTANTS_STAMP)

# Its tools stay out of .venv.
DOCS       := .docs
DOCS_STAMP := $(DOCS)/.stamp

docs: $(DOCS_STAMP) ## Build the documentation into .docs/html; warnings and references that lead nowhere are errors
	@PYTHONPYCACHEPREFIX=$(CURDIR)/$(DOCS)/pycache AIRFLOW_HOME=$(CURDIR)/$(DOCS)/home $(DOCS)/venv/bin/python docs/build.py

$(DOCS_STAMP): docs/requirements.txt constraints.txt pyproject.toml | $(STAMP)
	@echo "Making $(DOCS)/venv: this package and what builds the documentation"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(DOCS)/venv
	@$(BIN)/uv pip install --quiet --python $(DOCS)/venv/bin/python --constraint constraints.txt \
	    --build-constraint constraints.txt --editable '.[openlineage,sandbox]' --requirement docs/requirements.txt
	@touch $(DOCS_STAMP)

clean: ## Remove .venv and everything else that was generated
	rm -rf $(VENV) .bench .mutants .older .lowest .dist .docs .matrix .demo dist build logs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@set -eu; \
	if ! $(BIN)/python -c '$(SUITABLE)' >/dev/null 2>&1; then \
	    python=; \
	    for needs in 'import ensurepip, venv' 'pass'; do \
	        for candidate in $(CANDIDATES); do \
	            if "$$candidate" -c "$$needs; $(SUITABLE)" >/dev/null 2>&1; then python=$$candidate; break 2; fi; \
	        done; \
	    done; \
	    if [ -z "$$python" ]; then \
	        echo "No Python 3.11 to 3.14 found (tried: $(CANDIDATES)). Install one, or name it: make PYTHON=/path/to/python" >&2; \
	        exit 1; \
	    fi; \
	    if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	        package=$$("$$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	        if [ "$$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then \
	            echo "$$python cannot make virtual environments: its ensurepip module is missing. On Debian and Ubuntu, as root: apt-get install $$package" >&2; \
	            exit 1; \
	        fi; \
	        echo "Installing $$package"; \
	        export DEBIAN_FRONTEND=noninteractive; \
	        apt-get -qq update; \
	        apt-get -qq install -y "$$package" >/dev/null || apt-get -qq install -y python3-venv >/dev/null; \
	    fi; \
	    echo "Making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV); \
	fi; \
	echo "Installing uv"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv; \
	echo "Installing Airflow, the package and its tools"; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --build-constraint constraints.txt --editable '.[dev]'; \
	touch $(STAMP)
