# make demo [APP=code]   a real model, end to end, on two cores; prints where the report is
# make test              the whole suite in two processes (ARGS="-m 'not slow'" for a part of it,
#                        WORKERS=0 for one process)
# make check             ruff, mypy, import-linter
# make bench             the benchmark scripts        (BENCH=tests/benchmarks/NAME.py for one of them;
#                        rec_at_size.py fits ids for half an hour and is left out)
#
# Each of them first builds .venv when pyproject.toml or constraints.txt changed, and only then.

APP    ?= code
ARGS   ?=
WORKERS ?= 2
BENCH  ?= $(filter-out %_worker.py %_child.py %_peers.py %_models.py %_at_size.py,$(sort $(wildcard tests/benchmarks/[a-z]*.py)))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/installed-$(shell (pwd; cat pyproject.toml constraints.txt) | sha256sum | cut -c1-16)
TORCH := $(shell grep '^torch==' constraints.txt)

# Debian splits the venv module from Python; as root it is installed, otherwise asked for.
HAS_VENV = $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null
VENV_PACKAGE = $(shell $(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check bench install clean
.DEFAULT_GOAL := demo

demo: $(STAMP)
	@test -f apps/trillium_$(APP)/cli.py || \
	  { echo "make demo: there is no application APP=$(APP) (there is: $(patsubst apps/trillium_%/cli.py,%,$(wildcard apps/*/cli.py)))" >&2; exit 2; }
	@$(BIN)/trillium $(APP) run demo

# Tests of the real model are skipped, with the reason, where it can neither be found nor fetched.
test: $(STAMP)
	-@$(BIN)/trillium assets get smollm2-135m-instruct
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder $(ARGS)

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)
	@for script in $(BENCH); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

install: $(STAMP)

# torch goes first and by exact version: where a CPU build of it is offered, pip takes that one,
# and nothing installed later can replace it.
$(STAMP):
	@test -n "$(PYTHON)" || \
	  { echo "make: no Python 3.11 or newer found; install one (apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(HAS_VENV) || test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null || \
	  { echo "$(PYTHON) has no venv module: apt-get install $(VENV_PACKAGE)"; \
	    apt-get -qq update && apt-get -qq install -y --no-install-recommends $(VENV_PACKAGE); }
	@$(HAS_VENV) || \
	  { echo "make: $(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install $(VENV_PACKAGE)" >&2; exit 2; }
	@echo "installing into $(VENV) with $(PYTHON) (once; a few minutes, about 2 GB of disk)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --progress-bar off --constraint constraints.txt $(TORCH)
	@$(BIN)/python -m pip install --progress-bar off --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
