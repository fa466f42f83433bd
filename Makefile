# Two commands are enough: `make figures` and `make test`. `make` alone prints help.
#
# PROFILE=quick (default) runs offline on small data; PROFILE=paper runs at the papers' scale;
# PROFILE=laptop runs the notebooks that have a file in notebooks/laptop, at a scale between.
# JOBS notebooks run side by side. At the paper's scale one notebook runs at a time and
# spreads its own training runs over the cores instead (RCLIB_WORKERS).

SHELL         := /bin/bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS     += --no-builtin-rules --no-print-directory

PYTHON  ?= python3
PROFILE ?= quick
CORES   := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)

ifeq ($(PROFILE),quick)
  JOBS          ?= $(CORES)
  RCLIB_WORKERS ?= 1
else
  JOBS          ?= 1
  RCLIB_WORKERS ?= $(CORES)
endif

VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
# Runs a command whose notebooks get forked kernels; RCLIB_KERNEL=plain: ordinary ones.
KERNELS := $(PY) -m rclib.execution.kernels --
BUILD  := build/$(PROFILE)
NAMES  := $(patsubst notebooks/%.ipynb,%,$(sort $(wildcard notebooks/[0-9]*.ipynb)))
ifeq ($(filter quick paper,$(PROFILE)),)
  # Another profile holds the notebooks that have a parameters file for it.
  NAMES := $(filter $(patsubst notebooks/$(PROFILE)/%.yaml,%,$(wildcard notebooks/$(PROFILE)/*.yaml)),$(NAMES))
endif
DONE   := $(NAMES:%=$(BUILD)/%.ipynb)
OVERVIEW := $(BUILD)/00_overview.ipynb
MISSING  := $(foreach n,$(NAMES),$(if $(wildcard results/$(PROFILE)/$(n).json),,$(BUILD)/$(n).ipynb))
LIB    := $(filter-out rclib/site/%,$(shell find rclib -name '*.py' -o -name '*.mplstyle'))

export RCLIB_WORKERS
# One thread a run: results repeat bit for bit whatever the number of cores.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export PYTHONUNBUFFERED := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.PHONY: help setup figures _figures test lint lab bench lock notebooks site dist chaos machines seeds \
        mutants new check cache-info cache-clean clean distclean FORCE

help: ## Print this help
	@echo 'Usage: make TARGET [PROFILE=quick|laptop|paper] [JOBS=n]'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build .venv from requirements.lock (the other targets do it when needed)

$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"make: $(PYTHON) is Python {v[0]}.{v[1]}; 3.11 or newer is needed (make PYTHON=python3.12 ...)" or 0)'
	@echo '== Building $(VENV) from requirements.lock (once; a few minutes, about 6 GB with PyTorch)'
	@rm -f $@
	@$(PYTHON) -m venv $(VENV)
	@set +o pipefail; $(PY) -m pip install --disable-pip-version-check --progress-bar off -r requirements.lock \
	    | grep --line-buffered -E '^(Collecting|Processing|Installing|Successfully)' | cut -c1-100; exit $${PIPESTATUS[0]}
	@$(PY) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

figures: $(STAMP) ## Execute every notebook (PROFILE=quick, laptop or paper), draw every figure
	@+RCLIB_TODO=$$($(MAKE) -n _figures 2>/dev/null | sed -n 's/.*rclib\.execution\.runner run \([^ ]*\) .*/\1/p' | tr '\n' ' ' || true); \
	export RCLIB_TODO RCLIB_BEGIN=$$(date +%s); $(PY) -m rclib.execution.progress --profile $(PROFILE) --jobs $(JOBS); \
	$(KERNELS) $(MAKE) $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS)) --keep-going _figures || failed=1; \
	$(PY) -m rclib.reports.scoreboard --profile $(PROFILE); exit $${failed:-0}

_figures: $(DONE)

# The executed notebook is the target: written under a temporary name and renamed, so it exists
# only whole. Every notebook depends on the whole library: an edit that changes no result finds
# its training runs in the store and only draws again.
$(DONE): $(BUILD)/%.ipynb: notebooks/%.ipynb $(LIB) $(STAMP)
	@$(PY) -m rclib.execution.runner run $* --profile $(PROFILE)

ifneq ($(PROFILE),quick)
$(DONE): $(BUILD)/%.ipynb: notebooks/$(PROFILE)/%.yaml
endif

# The overview reads the others' results, so it comes last.
$(OVERVIEW): $(filter-out $(OVERVIEW),$(DONE))

# A result that was deleted is made again even when the executed notebook is still there.
$(filter-out $(OVERVIEW),$(MISSING)): FORCE

# Notebooks write their results to a folder that is thrown away; finished runs are shared with
# `make figures` through the store. Notebooks come first, since they take longest. Coverage of
# lines and branches, in all processes that the tests start, must reach what pyproject.toml asks.
test: lint ## Run the tests, the notebooks' checks (nbval), coverage, ruff and mypy
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && mkdir "$$out/coverage" && \
	export COVERAGE_FILE="$$out/coverage/data" && \
	RCLIB_OUT="$$out" TQDM_DISABLE=1 $(KERNELS) $(PY) -m coverage run -m pytest notebooks tests -n $(CORES) --dist loadfile --no-loadscope-reorder \
	    --nbval-lax --nbval-current-env --nbval-cell-timeout=600 --nbval-kernel-startup-timeout=120 && \
	$(PY) -m coverage combine --quiet && $(PY) -m coverage report

lint: $(STAMP) ## ruff, mypy and import-linter alone
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --check --quiet rclib tests benchmarks
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports >/dev/null || $(VENV)/bin/lint-imports

# Make's text goes to the environment unexpanded: no character of it means anything on the way.
unexport NAME PAPER TITLE
new: export RCLIB_NEW_NAME := $(value NAME)
new: export RCLIB_NEW_PAPER := $(value PAPER)
new: export RCLIB_NEW_TITLE := $(value TITLE)
new: $(STAMP) ## Begin a notebook: make new NAME=46_slug [PAPER=arxiv-1234.56789] [TITLE='...']
	@$(PY) -m rclib.execution.scaffold

check: $(STAMP) ## For daily work: lint and the fast tests of what changed (ALL=1: of everything)
	@$(PY) tests/project/quick_check.py $(if $(filter 1,$(ALL)),--all)

site: $(STAMP) ## Build the gallery in site/ from the results and the executed notebooks
	@$(PY) -m rclib.site

dist: $(STAMP) ## Build wheel and sdist in dist/ and check them (no network needed)
	@rm -rf dist && $(PY) -P -m build --no-isolation --outdir dist . >dist.log 2>&1 || { cat dist.log; exit 1; }
	@rm -f dist.log && $(PY) -P -m twine check --strict dist/*

lab: $(STAMP) ## Open JupyterLab in this environment
	@$(PY) -m jupyter lab notebooks

bench: $(STAMP) ## Speed against the usual way and against the machine's limit
	@for b in benchmarks/bench_*.py; do echo "== $$b"; $(PY) $$b; done

notebooks: $(STAMP) ## Refresh the stored outputs of the notebooks' check cells
	@$(PY) -m rclib.execution.runner refresh

lock: $(STAMP) ## Write requirements.lock anew from pyproject.toml (needs uv; UPGRADE=1: newest versions)
	@uv pip compile --universal --python-version 3.11 --all-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade )pyproject.toml -o requirements.lock

chaos: $(STAMP) ## Kill make figures at 20 random moments and compare the results (half an hour)
	@$(PY) tests/project/chaos.py

machines: $(STAMP) ## Run the quick profile as on an old processor: how far do the numbers differ?
	@$(PY) tests/project/machines.py

seeds: $(STAMP) ## Run every notebook with ten sets of seeds: does a verdict depend on them? (an hour)
	@$(PY) -m rclib.execution.stability --profile $(PROFILE) --jobs $(JOBS)

# Fresh each time: the copy in mutants/ follows the code only where functions change.
mutants: $(STAMP) ## Change the code that measures, one place at a time: do the tests notice? (ten minutes)
	@rm -rf mutants && $(PY) -m mutmut run --max-children $(CORES)
	@$(PY) -m mutmut results

cache-info: $(STAMP) ## List the store of finished runs: current, stale, left over
	@$(PY) -m rclib.runs.cache info

cache-clean: $(STAMP) ## Remove from the store what no run will ask for again
	@$(PY) -m rclib.runs.cache clean

clean: ## Remove generated notebooks and the quick profile's figures and results
	rm -rf build figures/quick mutants results/quick

distclean: clean ## Remove the environment and the store of finished runs as well
	rm -rf .venv .cache
