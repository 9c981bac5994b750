# make serve   the service at http://127.0.0.1:8000
# make test    the test suite
#
# Both install what they need into .venv first. On a machine without a GPU the CPU build of torch saves gigabytes:
#   make serve TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
TORCH_INDEX ?=
DATA ?= data/training
RUN ?= runs/default
BIN := .venv/bin
EXTRA := $(if $(shell command -v nvidia-smi),gpu,cpu)

.DEFAULT_GOAL := help
.PHONY: help serve test test-long test-engines lint bench train check-readme clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -2
	@echo "make test-long      kills, a full disk, generated requests, small trainings, the page in a browser, all pages' commands"
	@echo "make test-engines   the storage beyond one machine, on real parts"
	@echo "make lint    ruff and mypy"
	@echo "make bench   the benchmarks behind the published figures"
	@echo "make train   train the default checkpoint: DATA=folder (docs/data.md) RUN=folder"

serve: .venv/serve.stamp
	$(BIN)/python -m service

# In the order of the folders: by default the files with the fewest tests come last, and these are slow ones.
test: .venv/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/engines --ignore tests/long --ignore tests/page tests

# Servers that are killed, a disk that is full, generated requests, small trainings, the page in a browser, and the
# commands of all pages.
test-long: .venv/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/long tests/page

# A PostgreSQL server and the engine of Qdrant, both started by the tests.
test-engines: .venv/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/engines

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy client/qrag index service trainer benchmarks tests

bench: .venv/dev.stamp
	$(BIN)/python -m benchmarks.scan
	$(BIN)/python -m benchmarks.signals
	$(BIN)/python -m benchmarks.spin
	$(BIN)/python -m benchmarks.crowd
	$(BIN)/python -m benchmarks.batch
	$(BIN)/python -m benchmarks.indexing
	$(BIN)/python -m benchmarks.plots
	$(BIN)/python -m benchmarks.memory

TRAIN = $(BIN)/python -m trainer train --data $(DATA) --cache $(RUN)/cache

train: .venv/train.stamp
	$(TRAIN) trainer/recipes/default.yaml --out $(RUN)/first $(if $(wildcard $(RUN)/first/state),--resume)
	$(TRAIN) trainer/recipes/default-second.yaml --out $(RUN)/second --set start=$(RUN)/first/best $(if $(wildcard $(RUN)/second/state),--resume)
	$(TRAIN) trainer/recipes/default-last.yaml --out $(RUN)/last --set start=$(RUN)/second/best $(if $(wildcard $(RUN)/last/state),--resume)
	$(BIN)/python -m trainer average $(RUN)/second/best $(RUN)/last/best $(RUN)/averaged
	$(BIN)/python -m trainer calibrate $(RUN)/averaged trainer/recipes/default-last.yaml --data $(DATA) --cache $(RUN)/cache --episodes 1000 --out $(RUN)/calibrated
	$(BIN)/python -m trainer pack $(RUN)/calibrated $(RUN)/packed

check-readme: .venv/dev.stamp
	$(BIN)/python .ci/check_readme.py

clean:
	rm -rf .venv build *.egg-info client/build client/*.egg-info

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/serve.stamp: .venv/bin/python pyproject.toml client/pyproject.toml constraints.txt
	$(BIN)/python -m pip install --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) --no-deps torch
	$(BIN)/python -m pip install --constraint constraints.txt --editable ./client --editable '.[$(EXTRA)]'
	touch $@

.venv/train.stamp: .venv/serve.stamp
	$(BIN)/python -m pip install --constraint constraints.txt --editable ./client --editable '.[$(EXTRA),train]'
	touch $@

.venv/dev.stamp: .venv/serve.stamp
	$(BIN)/python -m pip install --constraint constraints.txt --editable ./client --editable '.[$(EXTRA),engines,otel,train,reader,dev]'
	touch $@
