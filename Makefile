# Each target makes or reuses the virtual environment that it needs; it installs again only when
# the requirements have changed. `make VENV=elsewhere ...` and `make PYTHON=python3.12 ...` work.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
OTHERS ?= $(VENV)-neurobench
ENERGY ?= $(VENV)-energy

PY := $(VENV)/bin/python
INSTALL = $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
REQUIREMENTS := setup.cfg pyproject.toml constraints.txt Makefile
# The extras that some test needs; a test of another one adds it here.
ALL := dev,train,box2d,mujoco,onnx,spikes,minatar,snntorch,atari,video

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test test-all test-nojit lint bench reference clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.core ## run the CartPole policy, event-driven, in its environment
	$(VENV)/bin/eventsim run cartpole --out runs/cartpole

test: $(VENV)/.test ## the quick tests; needs no extra
	$(PY) -m pytest -m "not slow"

test-all: $(VENV)/.all test-nojit ## all tests, with the extras; only absent agents are skipped
	$(PY) -m pytest -n $(JOBS) --forbid-skips

test-nojit: $(VENV)/.test ## the tests marked nojit, with the kernels as plain Python
	NUMBA_DISABLE_JIT=1 $(PY) -m pytest -m "nojit and not slow"

lint: $(VENV)/.dev ## style, types and the direction of imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --config setup.cfg --no-logo

bench: $(VENV)/.core ## speed of the simulator
	$(PY) -m tests.bench

reference: $(VENV)/.all $(OTHERS)/.peers $(ENERGY)/.peers ## trained agents, the report page in Chromium, other tools' figures
	$(PY) -m pytest -m agents -rA
	$(INSTALL) playwright
	$(PY) -m tests.report_browser
	$(OTHERS)/bin/python tests/reference_neurobench.py --check
	$(OTHERS)/bin/python tests/reference_energy.py --check syops
	$(ENERGY)/bin/python tests/reference_energy.py --check keras-spiking
	$(ENERGY)/bin/python tests/reference_energy.py --check spikingjelly

clean: ## remove what was built, cached kernels too; the virtual environments stay
	rm -rf build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find eventsim models analysis tests -name __pycache__ -type d -prune -exec rm -rf {} +

# What other tools say is recorded; these environments ask them again. They are large, and syops
# needs an older SpikingJelly than the one whose own figures are compared.
$(OTHERS)/.peers: PEERS := neurobench==2.3.0 syops==0.0.5 spikingjelly==0.0.0.0.12 progress
$(ENERGY)/.peers: PEERS := spikingjelly==2.0.0 keras-spiking==0.3.0 tensorflow-cpu tf_keras
$(OTHERS)/.peers $(ENERGY)/.peers: Makefile
	$(@D)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(PEERS)
	@touch $@

# pip is asked for, not python: an attempt on a machine without the venv module leaves a python.
$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or \
	  sys.exit("eventsim needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@touch $@

# setuptools comes first and builds without isolation, so that constraints.txt holds for it too.
$(VENV)/.core $(VENV)/.test $(VENV)/.dev $(VENV)/.all: $(VENV)/.venv $(REQUIREMENTS)
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable '.$(EXTRAS)'
	@touch $@
$(VENV)/.test: EXTRAS := [test]
$(VENV)/.dev: EXTRAS := [dev]
$(VENV)/.all: EXTRAS := [$(ALL)]
