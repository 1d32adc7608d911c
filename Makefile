# What one does with this project; `make` alone lists it. Everything runs in .venv, made from exact pins when it is missing.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help env run example test test-slow lint serve serve-stop serve-model ui report clean

help:  ## list these targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)$$/  make \1\t\2/' | expand -t 20

env: $(READY)  ## create the environment (some minutes, once; again only when the pins change)

run: $(READY)  ## retrain, evaluate and promote; only what has changed runs (ARGS=--help tells the options)
	@$(BIN)/python -m flows.retrain $(ARGS)

example: $(READY)  ## the same on preference data without any truth and a benchmark, both drawn, in example/
	@$(BIN)/python -m flows.example $(ARGS)

test: lint  ## lint, then all tests but the slow ones
	# One thread each: two test processes with two threads of torch on two cores take many times longer.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-slow: $(READY)  ## the tests that kill real servers, clusters and nights
	# Three at a time: they wait for most of their time.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m slow $(ARGS)

lint: $(READY)  ## ruff, mypy, and that imports go one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: $(READY)  ## start Prefect server, worker and MLflow server on loopback; retrains every night
	@$(BIN)/python -m flows.serve start

serve-stop: $(READY)  ## stop them
	@$(BIN)/python -m flows.serve stop

serve-model: $(READY)  ## serve the champion on loopback, as OpenAI's clients speak, with the risk of every word
	@$(BIN)/python -m adapt.serving start $(ARGS)

ui: $(READY)  ## open the runs of all retrainings in MLflow's UI
	@$(BIN)/python -m flows.serve ui

report: $(READY)  ## one HTML file about the last retraining, to be mailed (ARGS="RUN RUN2" compares two)
	@$(BIN)/python -m adapt.report $(or $(ARGS),last)

clean:  ## remove caches of the tools; results, runs and registered models stay
	rm -rf .mypy_cache .import_linter_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find adapt flows tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and there is no python3 here" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, $(PYTHON) is older; name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
