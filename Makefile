# Each target sets up what it needs in .venv; nothing is installed again when nothing changed.
.PHONY: help install demo train test lint types lock wheel-check bench-peers

BIN := .venv/bin
STAMP := .venv/.installed
PEERS_STAMP := .venv-peers/.installed
LOCK := $(BIN)/uv pip compile -q setup.cfg --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
  --no-header --no-annotate --universal
export PYTHON ?= python3
TRAIN_RUN ?= runs/cpu
TRAIN_MINUTES ?= 10

help:
	@echo "make demo         benchmark the generalist that comes with the package on its eight tasks"
	@echo "make train        train a model on eight tasks from scratch for $(TRAIN_MINUTES) minutes, then benchmark it"
	@echo "make test         run the tests"
	@echo "make lint         check the style"
	@echo "make types        check the types"
	@echo "make wheel-check  build the wheel and try it in a fresh environment"
	@echo "make bench-peers  install the peers that 'transframer benchmark speed' times beside ours"
	@echo "make lock         compile the lock files from setup.cfg"

install: $(STAMP)

$(STAMP): requirements.lock setup.cfg pyproject.toml
	@.ci/install
	@touch $@

demo: $(STAMP)
	@.ci/demo

train: $(STAMP)
	@recipes/cpu "$(TRAIN_MINUTES)" "$(TRAIN_RUN)"

test: $(STAMP)
	@$(BIN)/pytest

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

lock: $(STAMP)
	@$(LOCK) --extra dev -o requirements.lock
	@$(LOCK) --extra peers --extra fast --extra jpeg -o requirements-peers.lock

wheel-check: $(STAMP)
	@.ci/wheel-check

bench-peers: $(PEERS_STAMP)
	@echo "the peers are in .venv-peers; now run: .venv-peers/bin/transframer benchmark speed"

$(PEERS_STAMP): requirements-peers.lock setup.cfg pyproject.toml | $(STAMP)
	@.ci/bench-peers
	@touch $@
