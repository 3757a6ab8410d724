# Everything a developer or an operator types. `make` alone explains itself.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup serve test test-ray check format proto bundle train parity evaluate bench bench-rescore rescore-kill-test crash-test lock clean

PYTHON ?= python3
PRECISION ?= int8
BIN := .venv/bin
TRAIN_BIN := .venv-train/bin
RAY_BIN := .venv-ray/bin
STUBS = --python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1)
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help: ## Explain the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

setup: .venv/.serve var/.bundle ## Install what serving needs (no torch) and build the default bundle

serve: setup ## Set up and run the service on 127.0.0.1:50551
	$(BIN)/stillwatch serve

test: .venv/.dev var/.bundle ## Set up and run the tests (no torch)
	$(BIN)/pytest -n auto --dist loadfile

test-ray: .venv-ray/.ray var/.bundle ## Run the tests of re-scoring on Ray (installs Ray into .venv-ray)
	$(RAY_BIN)/pytest tests/test_batch_ray.py

check: .venv/.dev build/googleapis ## Format, lint, types, architecture, docstrings, proto
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pydoclint -q classifier index
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf lint
	$(BIN)/buf build -o build/current.binpb --path proto/stillwatch
	$(BIN)/buf breaking build/current.binpb --against proto/baseline.binpb
	rm -rf build/stubs && mkdir -p build/stubs
	$(call stubs,build/stubs)
	diff -r -x '*.proto' -x __pycache__ -x baseline.binpb build/stubs proto

format: .venv/.dev ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: .venv/.dev build/googleapis ## Regenerate the stubs from proto/
	$(BIN)/buf format -w proto
	$(call stubs,proto)

bundle: ## Build the default bundle anew (PRECISION=fp32 where int8 is refused)
	rm -f var/.bundle
	$(MAKE) var/.bundle

train: .venv/.dev ## Fit the default head on the seed corpus (no torch); commit what it writes
	STILLWATCH_HOME=var $(BIN)/stillwatch train --output classifier/default

parity: .venv-train/.train var/.bundle ## Hold the encoder to sentence-transformers on 500 texts (torch)
	$(TRAIN_BIN)/python benchmarks/parity.py

evaluate: .venv/.dev var/.bundle ## Measure on labelled prompts: make evaluate FILE=prompts.jsonl.gz
	$(BIN)/stillwatch evaluate $(FILE) --output evaluation

bench: .venv-train/.train var/.bundle ## Time the scorer and the service against the plain reference (torch)
	$(TRAIN_BIN)/python benchmarks/scorer.py
	$(TRAIN_BIN)/python benchmarks/served.py

bench-rescore: .venv-train/.reference var/.bundle ## Time re-scoring 200,000 prompts: make bench-rescore [ROWS=2000] (torch)
	$(TRAIN_BIN)/python benchmarks/overnight.py $(if $(ROWS),--rows $(ROWS))

rescore-kill-test: .venv/.dev var/.bundle ## Kill a re-scoring run 100 times and hold its output to a calm run's
	STILLWATCH_HOME=var PYTHONPATH=benchmarks $(BIN)/python benchmarks/killing.py

crash-test: .venv/.dev ## Kill writers of the example store 500 times on SQLite and on PostgreSQL, and the server under them
	PYTHONPATH=benchmarks:tests $(BIN)/python benchmarks/crashing.py $(if $(KILLS),--kills $(KILLS))

lock: .venv/.dev ## Resolve constraints.txt anew
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --upgrade --no-header --no-annotate -o constraints.txt

clean: ## Remove what was built or installed; the example store stays
	rm -rf .venv .venv-train .venv-ray build dist evaluation var/bundles var/cache var/.bundle

.venv/.serve: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -e .
	@touch $@

.venv/.dev: .venv/.serve
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@

.venv-train/.train: pyproject.toml constraints.txt
	test -x $(TRAIN_BIN)/python || $(PYTHON) -m venv .venv-train
	$(TRAIN_BIN)/pip install --quiet -e '.[train]'
	@touch $@

.venv-train/.reference: .venv-train/.train
	$(TRAIN_BIN)/pip install --quiet -e '.[reference]'
	@touch $@

.venv-ray/.ray: pyproject.toml constraints.txt
	test -x $(RAY_BIN)/python || $(PYTHON) -m venv .venv-ray
	$(RAY_BIN)/pip install --quiet -e '.[dev,ray]'
	@touch $@

var/.bundle: .venv/.serve $(wildcard classifier/*.py classifier/default/* classifier/export/*.py index/seed/*.jsonl)
	STILLWATCH_HOME=var $(BIN)/stillwatch bundle build --precision $(PRECISION)
	@touch $@

# google/rpc/status.proto, which buf cannot fetch, comes from the installed package.
build/googleapis: .venv/.dev
	mkdir -p $@/google/rpc
	cp $$($(BIN)/python -c 'import google.rpc as r; print(r.__path__[0])')/status.proto $@/google/rpc/

define stubs
$(BIN)/python -m grpc_tools.protoc -Iproto -Ibuild/googleapis -I$$($(BIN)/python -c 'import grpc_tools as g; print(g.__path__[0])')/_proto \
	--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	$(call STUBS,$(1)) proto/stillwatch/v1/*.proto
endef
