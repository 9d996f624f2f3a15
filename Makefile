# make run    environment, default configuration, results/report.html
# make test   environment, format, lint and every test
# make bench  the side-by-side runs against peers, in environments of their own
PYTHON ?= python3.11
VENV   ?= .venv
CORES  ?= 2
LOCK   := envs/requirements.lock
BIN    := $(VENV)/bin
SM     := $(BIN)/snakemake --cores $(CORES)
export PATH := $(abspath $(BIN)):$(PATH)
# One invocation per stage: an anchor that came out the same ends the rerun there.
STAGES := fingerprints summaries calibrations libraries elements maps all

run: $(VENV)/.done
	set -e; for stage in $(STAGES); do $(SM) $$stage; done
	$(SM) --report results/report.html

test: $(VENV)/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(SM) --lint
	$(BIN)/python -m pytest -q

env: $(VENV)/.done

$(VENV)/.done: pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(LOCK) -e '.[slurm,test]'
	touch $@

.PHONY: run test env
