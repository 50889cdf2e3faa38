# ai-enrichment-light. `make run` on a fresh machine needs Python 3.11, git, make and a package index, nothing else.
# PORT, AI_MODELS_PATH and BENTOML_HOME are honoured by every target.
PYTHON ?= python3.11
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export HOST ?= 127.0.0.1
export BENTOML_DO_NOT_TRACK ?= True
# What ultralytics writes for itself goes here, and not into the home folder.
export YOLO_CONFIG_DIR ?= $(CURDIR)/$(VENV)/ultralytics
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
# Pictures for the benchmarks; none come with the project.
PICTURES ?= ../shared/images

.PHONY: help install import run test check bench soak compare image lock

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(INSTALLED) ## the environment, in .venv

$(INSTALLED): requirements/dev.txt
	@echo "== environment: about 5 GB, half a minute on a fast line"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes requirements/dev.txt
	@touch $@

# A folder of your own pictures, for an int8 form of each model beside the others
CALIBRATE ?=

import: install ## weights → BentoML's model store; fails where a model's weights can't be had; CALIBRATE=folder: int8, too
	$(BIN)/python -m models.import_models $(if $(CALIBRATE),--calibrate "$(CALIBRATE)")

run: install ## the trial: import what can be had, stand-ins for the rest, serve on 127.0.0.1:8096
	@$(BIN)/python -m models.import_models --untrained-standins
	@$(BIN)/python -m tools.trial

test: install ## all tests, two files at a time; those on real weights need ../shared
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: install ## lint, format, types, the rules of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers auto
	$(BIN)/lint-imports --no-logo

bench: install ## how long starts and first requests take, with the models of the store
	$(BIN)/python -m benchmarks.starts $(firstword $(wildcard $(PICTURES)/*.jpg))

soak: install ## 2,000 requests over all models on a budget that fits three of them; PICTURES=folder
	$(BIN)/python -m benchmarks.soak $(PICTURES)

compare: install ## the service beside a plain server and raw inference, twelve minutes; PICTURES=folder; into benchmarks/
	$(BIN)/python -m benchmarks.compare $(PICTURES) --out benchmarks

# gpu: PyTorch with its CUDA, imports mounted weights at its start; cpu: no torch at all, the models of the store packed
VARIANT ?= gpu
# packed: the models of the store; mounted (not on a CPU): imported at the container's start
WEIGHTS ?= $(if $(filter cpu,$(VARIANT)),packed,mounted)
# Packages to install beside the locked ones; TensorRT: EXTRA="tensorrt-cu13>=10.13,<11"
EXTRA ?=

image: install ## ai-enrichment-light:<version> for a GPU; VARIANT=cpu for one without torch; WEIGHTS=packed|mounted
	$(BIN)/python -m tools.image --variant $(VARIANT) --weights $(WEIGHTS) --extra "$(EXTRA)"

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --custom-compile-command "make lock" pyproject.toml

lock: install ## requirements/*.txt out of pyproject.toml, with hashes and without download addresses
	$(COMPILE) --output-file requirements/serve.txt
	$(COMPILE) --group gpu --group import --output-file requirements/gpu.txt
	$(COMPILE) --group import --group int8 --group dev --output-file requirements/dev.txt
