# Everything a newcomer types. Each target sets up .venv on its first use.

PYTHON ?= python3
PY := .venv/bin/python
# Only what is given on the command line counts: many shells have a NAME of their own.
given = $(if $(findstring command line,$(origin $(1))),$($(1)))

export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH
MAKEFLAGS += --no-print-directory

# Where nothing can be written to the home folder, what Jupyter, IPython and Matplotlib keep goes into .venv.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export JUPYTER_CONFIG_DIR := $(CURDIR)/.venv/home/jupyter/config
export JUPYTER_DATA_DIR := $(CURDIR)/.venv/home/jupyter/data
export IPYTHONDIR := $(CURDIR)/.venv/home/ipython
export MPLCONFIGDIR := $(CURDIR)/.venv/home/matplotlib
endif

# What tests/browser can drive; empty where there is none, and then they are skipped, as they are without Playwright.
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

.PHONY: help train lab test test-fast test-browser notebooks benchmark

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

train: .venv/.installed ## train CartPole; PRESET=pendulum SEED=3 NAME=my-run for others
	@$(PY) -m ppo_lab.notebook.headless.execute notebooks/01_train.ipynb \
		$(if $(call given,PRESET),-p preset '$(call given,PRESET)') \
		$(if $(call given,SEED),-p seed '$(call given,SEED)') \
		$(if $(call given,NAME),-p run_name '"$(call given,NAME)"')

lab: .venv/.installed ## open notebooks/01_train.ipynb in JupyterLab, on this machine only
	@$(PY) -m jupyterlab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) \
		--LabApp.default_url=/lab/tree/notebooks/01_train.ipynb

test: .venv/.installed ## everything: ruff, mypy, all tests, all notebooks in fast mode
	@$(if $(CHROMIUM),$(MAKE) .venv/.browser || echo "no Playwright: the tests in tests/browser will be skipped")
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(if $(CHROMIUM),,echo "no Chromium on the PATH: the tests in tests/browser will be skipped")
	@$(PY) -m pytest -q
	@PPO_LAB_FAST=1 $(PY) -m pytest -q --nbval-lax --nbval-current-env notebooks

test-fast: .venv/.installed ## the tests that take seconds
	@$(PY) -m pytest -q -m "not slow and not browser"

test-browser: .venv/.browser ## the notebooks in JupyterLab, in a real browser
	@$(PY) -m pytest -q -rs tests/browser

notebooks: .venv/.installed ## execute the committed notebooks again, in place
	@$(PY) -m ppo_lab.notebook.headless.execute --regenerate notebooks/*.ipynb

benchmark: .venv/.installed ## measure what the README claims, beside Stable-Baselines3 (about an hour)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@$(PY) benchmarks/peers.py
	@$(PY) benchmarks/limits.py
	@$(PY) benchmarks/saving.py --json benchmarks/results/saving.json
	@$(PY) benchmarks/dashboard.py --json benchmarks/results/dashboard.json
	@$(PY) benchmarks/learning.py

.venv/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; make PYTHON=/path/to/one")'
	@echo "setting up .venv: once, a few minutes"
	@$(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@mkdir -p .venv/share/jupyter/lab/settings  # JupyterLab need not ask whether it may fetch news
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' \
		> .venv/share/jupyter/lab/settings/overrides.json
	@touch $@

.venv/.browser: .venv/.installed tests/browser/requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r tests/browser/requirements.txt
	@touch $@
