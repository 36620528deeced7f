# `make` lists the targets. Each sets up .venv by itself, once, from the versions pinned in constraints.txt.
PYTHON ?= python3
EXTRA ?=
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -q --disable-pip-version-check -c constraints.txt
# Extras that were added once (bench, cuda, tpu) are added again whenever .venv is made anew.
READY := $(VENV)/.ready $(wildcard $(VENV)/.with-*)

$(if $(filter-out cuda tpu,$(EXTRA)),$(error EXTRA is cuda or tpu, not '$(EXTRA)'))
stop = { echo "$(strip $(1))" >&2; exit 1; }

.PHONY: help setup verify-theorems train test test-torch bench lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

setup: $(READY) $(EXTRA:%=$(VENV)/.with-%) ## make .venv (EXTRA=cuda or EXTRA=tpu for an accelerator, PYTHON=... for another Python)
	@[ "$(origin PYTHON)" = file ] || [ "$$($(PYTHON) -V)" = "$$($(PY) -V)" ] || \
		$(call stop, $(VENV) was made with $$($(PY) -V) and not with $(PYTHON): run 'make clean' first.)
	@$(PY) -c 'import jax; print("Ready: jax", jax.__version__, "on", jax.default_backend())'
	@echo "Next: make verify-theorems"

verify-theorems: $(READY) ## check every statement numerically (ARGS="--only T5" for one, ARGS=--help for all options)
	@$(PY) -m proofs_numeric $(ARGS)

train: $(READY) ## train a small ResNet on CIFAR-10 or synthetic images (ARGS="--method byol", ARGS=--help)
	@$(PY) experiments/resnet_cifar.py --preset small --fallback synthetic $(ARGS)

test: $(READY) ## run the tests and doctests (ARGS=tests/spectra for a part)
	@$(PY) -m pytest -n auto --maxprocesses 4 $(ARGS)

test-torch: $(READY) $(VENV)/.with-bench ## compare a training step of ResNet-18 with torch's (minutes)
	@RDM_JAX_TEST_TORCH=1 $(PY) -m pytest -s tests/torch $(ARGS)

bench: $(READY) $(VENV)/.with-bench ## measure speed against NumPy and torch (ARGS=--quick for a taste)
	@for script in benchmarks/*.py; do echo "$$script"; $(PY) "$$script" $(ARGS) || exit; done

lint: $(READY) ## check style and types
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

clean: ## remove .venv and all caches
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		$(call stop, rdm_jax needs Python 3.11 or newer; $(PYTHON) is '$$($(PYTHON) -V 2>&1)'. Name another: make PYTHON=...)
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		$(call stop, $(PYTHON) has no venv module. Install it (Debian: apt install python3-venv) or name another: make PYTHON=...)
	@echo "Installing the pinned packages into $(VENV): a minute or two, once."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) -e '.[proofs,train,test]'
	@touch $@

$(VENV)/.with-%: $(VENV)/.ready
	@echo "Adding the extra '$*' to $(VENV)."
	@$(PIP) -e '.[$*]'
	@touch $@
