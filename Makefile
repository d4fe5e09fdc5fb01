# The targets of the contract. `make up` and `make test` are the README's two commands.
# Nothing here needs root, Docker or a GPU. `make up ARGS="--port 9000"` passes options on.

VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements/runtime.txt requirements/dev.txt
# The fastest interpreter that is new enough; PYTHON=... overrides it.
PYTHON ?=
# uv installs: the one that is here, else the locked one, in a folder of its own. It makes a virtual
# environment from any interpreter, also from a distribution's without its venv module.
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
COMPILE := $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE)

# On every processor, four at the most where real engines run. What stays together tests/by_processor.py says.
SHARED_OUT = -n logical --dist loadfile --no-loadscope-reorder
UNIT = $(BIN)/python -m pytest -q $(SHARED_OUT) tests/unit tests/docs

.PHONY: setup up fast test check unit bench docs lock clean
.DEFAULT_GOAL := up

setup: $(VENV)/.project ## the virtual environment with the locked dependencies; quick when nothing changed
	@$(BIN)/python -m compileall -q src

up: setup ## start the server
	@exec $(BIN)/pilothouse up $(ARGS)

fast: setup ## compile the request path, where there is a C compiler: two minutes, for twice as many requests and more
	@$(BIN)/python tools/fast.py

test: setup ## every test that this machine can run; what was skipped stands in a closing table
	$(BIN)/python -m pytest $(SHARED_OUT) --maxprocesses 4 $(ARGS)

unit: setup
	$(UNIT)

check: setup ## format, lint, types, layers, unit tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(UNIT)

bench: setup ## every benchmark of bench/, each with its peer and the ratio
	$(BIN)/python bench/all.py $(ARGS)

docs: setup ## write docs/reference from the code
	@if [ -f docs/generate.py ]; then $(BIN)/python docs/generate.py; else echo "docs/generate.py is not there yet"; fi

lock: $(UV) ## write the locks anew from pyproject.toml; UPGRADE=--upgrade takes newer releases
	$(COMPILE) --output-file requirements/runtime.txt
	$(COMPILE) --extra dev --constraint requirements/runtime.txt --output-file requirements/dev.txt
	echo "uv" | $(UV) pip compile - --quiet --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE) --output-file requirements/uv.txt

clean: ## remove what the targets above made, the virtual environment too
	rm -rf $(VENV) .uv bench/build .mypy_cache .ruff_cache .hypothesis .coverage

# Three steps, each with a stamp: a changed pyproject.toml alone does not touch the dependencies.
$(VENV)/.made: | $(UV)
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$(sh requirements/fastest-python.sh); \
	[ -n "$$python" ] || { echo "Pilothouse needs Python 3.11 or newer, and none was found. Name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }; \
	echo "Making $(VENV) with $$($$python --version) of $$(command -v $$python)"; \
	$(UV) venv --quiet --allow-existing --python "$$(command -v $$python)" $(VENV)
	@touch $@

$(VENV)/.dependencies: $(VENV)/.made requirements/dev.txt
	@echo "Installing the locked dependencies (450 MB on disk; once, a minute or two)"
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes --requirement requirements/dev.txt
	@echo "Compiling them, so that the first start is as quick as the others"
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # a package may carry a file for another Python
	@touch $@

$(VENV)/.project: $(VENV)/.dependencies pyproject.toml
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Ready: $(BIN)/pilothouse"

.uv/bin/uv: requirements/uv.txt
	@echo "Fetching uv, which installs the rest"
	@for python in python3 python3.11 python3.12 python3.13 python3.14; do \
		"$$python" -I -c "import ensurepip, venv" 2>/dev/null && break; python=; done; \
	[ -n "$$python" ] || { echo "To begin, Pilothouse needs uv, or a Python with its venv module (on Debian: apt install python3-venv)" >&2; exit 1; }; \
	"$$python" -m venv .uv
	@.uv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes --requirement requirements/uv.txt
	@touch $@
