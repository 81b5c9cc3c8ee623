# Each target sets up what it needs in .venv; nothing is installed again when nothing changed.
.PHONY: help install demo test lint types lock wheel-check

BIN := .venv/bin
STAMP := .venv/.installed
export PYTHON ?= python3
export DEMO_RUN ?= runs/demo
export DEMO_MINUTES ?= 10

help:
	@echo "make demo         train one model on eight tasks for $(DEMO_MINUTES) minutes, then benchmark it"
	@echo "make test         run the tests"
	@echo "make lint         check the style"
	@echo "make types        check the types"
	@echo "make wheel-check  build the wheel and try it in a fresh environment"
	@echo "make lock         compile requirements.lock from setup.cfg"

install: $(STAMP)

$(STAMP): requirements.lock setup.cfg pyproject.toml
	@.ci/install
	@touch $@

demo: $(STAMP)
	@.ci/demo

test: $(STAMP)
	@$(BIN)/pytest

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

lock: $(STAMP)
	@$(BIN)/uv pip compile -q setup.cfg --extra dev --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-header --no-annotate --universal -o requirements.lock

wheel-check: $(STAMP)
	@.ci/wheel-check
