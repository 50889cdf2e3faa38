# Tasks of ai-enrichment-light. `make run` needs only Python 3.11, git, make and a package index.
# Every target respects HOST, PORT, AI_MODELS_PATH and BENTOML_HOME.
PYTHON ?= python3.11
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export BENTOML_DO_NOT_TRACK ?= True
# The folder for ultralytics' own files; its default is in the home folder.
export YOLO_CONFIG_DIR ?= $(CURDIR)/$(VENV)/ultralytics
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
# The benchmarks' pictures; the project has none.
PICTURES ?= ../shared/images

.PHONY: help install import doctor run test slow coverage check audit sbom docs bench fuzz soak faults compare image lock openapi examples

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(INSTALLED) ## the environment, in .venv

$(INSTALLED): requirements/dev.txt client/pyproject.toml
	@echo "== installing the environment: about 5 GB"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes requirements/dev.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable client
	@touch $@

# A folder of your own pictures, to calibrate an int8 version of each model
CALIBRATE ?=

# The command exits with 0 for all five models and 3 for a part of them, which is enough to serve. make has one code for
# all errors, so 3 counts as success here. All other codes, such as 1 for no model, stay errors.
import: install ## available weights → BentoML's model store; fails only if there are none; CALIBRATE=folder: int8, too
	$(BIN)/python -m models.import_models $(if $(CALIBRATE),--calibrate "$(CALIBRATE)") || [ $$? -eq 3 ]

doctor: install ## what this machine has, what the service will use, how fast it will be, and what is missing
	@$(BIN)/python -m tools.doctor

# 1 = `make run` listens on the network
LAN ?=

run: export HOST := $(if $(filter 1,$(LAN)),0.0.0.0,$(or $(HOST),127.0.0.1))
run: install ## a trial on 127.0.0.1:8096 (LAN=1: for the whole network), with untrained stand-ins for missing weights
	@$(BIN)/python -m models.import_models --untrained-standins || [ $$? -eq 3 ]
	@$(BIN)/python -m tools.trial

test: install ## the tests, two files at a time, without the slow ones; tests with real weights need ../shared
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

slow: install ## the tests that `make test` leaves out: whole benchmarks, hung processes, torch on real pictures; about 25 minutes
	$(BIN)/python -m pytest -m slow

coverage: install ## the tests once more, counting what they run; fails below what was reached on 2026-11-27
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-fail-under=92

# The code that bandit reads. Tests and benchmarks are left out: they do unsafe things to this machine on purpose.
CODE := service.py api client/enrichment_client engines importing models runners settings tasks vision tools examples

check: install ## lint, format, types, import rules, unsafe code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers auto
	$(BIN)/lint-imports --no-logo
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(CODE)

# Each in an environment of its own: their packages change how the service's libraries behave.
audit: install ## look the locked packages up in the index of vulnerabilities; needs a network
	@for lock in serve gpu dev; do echo "== requirements/$$lock.txt"; \
		$(BIN)/uv tool run --from pip-audit==2.10.1 pip-audit --strict --disable-pip --require-hashes \
			--requirement requirements/$$lock.txt && continue; \
		echo "requirements/$$lock.txt has vulnerable packages, or pypi.org's index can't be asked (a mirror has none): see above"; \
		exit 1; done

VERSION := $(shell sed -n '0,/^version = /s/^version = "\(.*\)"/\1/p' pyproject.toml)

sbom: install ## the Python packages of both images, and Debian's where an image is built, as CycloneDX, into sbom/
	@mkdir -p sbom
	@for image in cpu:serve gpu:gpu; do \
		$(BIN)/uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements/$${image#*:}.txt \
			--pyproject pyproject.toml --mc-type application --output-reproducible \
			--output-file sbom/ai-enrichment-light-$${image%:*}.cdx.json && \
		echo "sbom/ai-enrichment-light-$${image%:*}.cdx.json"; done
	@for image in cpu:$(VERSION)-cpu gpu:$(VERSION); do \
		out=sbom/ai-enrichment-light-$${image%:*}.debian; tag=ai-enrichment-light:$${image#*:}; \
		docker image inspect $$tag >/dev/null 2>&1 || { echo "NOT WRITTEN: $$out.cdx.json. Docker has no image $$tag"; continue; }; \
		docker run --rm --network none --entrypoint cat $$tag /var/lib/dpkg/status >$$out.status && \
		$(BIN)/uv tool run --from "debsbom[cdx]==0.10.2" debsbom generate --from-pkglist --distro-arch amd64 \
			--distro-name $$tag --sbom-type cdx --out $$out <$$out.status || exit 1; \
		rm $$out.status; echo "$$out.cdx.json"; done

# The site's source is a copy of what the pages link to, so that links work there as they do on the forge. Zensical
# stays out of the lock: it runs in an environment of its own.
SITE := .run/docs
ZENSICAL := zensical==0.0.73

docs: install ## the documentation as a site, in .run/docs/site; fails on stale pages and dead links
	$(BIN)/python -m tools.docs check
	$(BIN)/python -m tools.docs measure
	rm -rf $(SITE) && mkdir -p $(SITE)/source
	git ls-files -z -- '*.md' ':!tests' docs benchmarks deploy examples configuration.yaml LICENSE \
		| xargs -0 cp --parents --target-directory $(SITE)/source
	$(BIN)/uvx --from $(ZENSICAL) zensical build --strict --clean

bench: install ## the time of starts and first requests, with the models of the store
	$(BIN)/python -m benchmarks.starts "$$(ls -- "$(PICTURES)"/*.jpg | head -n 1)"

# Minutes that fuzz and soak may take
MINUTES ?= 5

# bodies or pictures = look for those by the lines that they reach, with atheris, in an environment of its own
GUIDED ?=

fuzz: install ## changed pictures, requests and people, in process and over HTTP, without weights; MINUTES=5 GUIDED=bodies|pictures
ifeq ($(GUIDED),)
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES) --first $$(date +%s)
else
	PYTHONPATH="$(CURDIR):$(CURDIR)/$(VENV)/lib/python3.11/site-packages" $(BIN)/uv tool run --python 3.11 --with atheris==3.0.0 \
		python -m tests.fuzz.guided $(GUIDED) --minutes $(MINUTES)
endif

soak: install ## all routes under a mix with mistakes, hang-ups and slow callers: slopes of memory and more; MINUTES=5 or REQUESTS=100000
	$(BIN)/python -m benchmarks.endurance $(if $(REQUESTS),--requests $(REQUESTS),--minutes $(MINUTES))

FAULTS := tests/serving/test_faults.py tests/serving/test_failures.py tests/serving/test_restarts.py \
	tests/serving/test_import_at_start.py tests/runners/test_metric_files.py tests/models/test_store.py \
	tests/importing/test_download.py tests/api/test_remote.py tests/tasks/test_extremes.py \
	tests/serving/test_stops.py tests/serving/test_kills.py tests/api/test_stopping.py \
	tests/runners/test_supervisor.py tests/runners/test_progress.py \
	tests/models/test_saving.py tests/importing/test_killed.py tests/importing/test_disk.py \
	tests/serving/test_start_faults.py tests/serving/test_disk_faults.py tests/serving/test_model_files.py \
	tests/serving/test_clock.py tests/serving/test_names.py tests/serving/test_model_limits.py

faults: install ## killed and hung processes, full disks, lost files, taken ports, clocks, names: about 12 minutes
	$(BIN)/python -m pytest -m "slow or not slow" $(FAULTS)

compare: install ## compare the service with a plain server and raw inference, about 12 minutes; PICTURES=folder; into benchmarks/
	$(BIN)/python -m benchmarks.compare "$(PICTURES)" --out benchmarks

openapi: install ## write docs/reference/openapi.json, which tests compare with the served document
	$(BIN)/python -m tools.openapi

# A service with real weights, ENRICHMENT_MODEL_MANAGEMENT=true and the ENRICHMENT_API_KEY of this environment
SERVICE ?= http://127.0.0.1:$(or $(PORT),8096)

examples: install ## ask a live SERVICE for the OpenAPI document's example answers, api/examples.json; then: make openapi
	$(BIN)/python -m tools.examples $(SERVICE)

# gpu: torch with its CUDA, imports mounted weights at the start. cpu: no torch, the store's models packed
VARIANT ?= gpu
# packed: the store's models. mounted (gpu only): imported at the container's start
WEIGHTS ?= $(if $(filter cpu,$(VARIANT)),packed,mounted)
# Packages to install in addition to the locked ones; for TensorRT: EXTRA="tensorrt-cu13>=10.13,<11"
EXTRA ?=

image: install ## build ai-enrichment-light:<version> for a GPU; VARIANT=cpu: without torch; WEIGHTS=packed|mounted
	$(BIN)/python -m tools.image --variant $(VARIANT) --weights $(WEIGHTS) --extra "$(EXTRA)"

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --custom-compile-command "make lock" pyproject.toml

lock: install ## write requirements/*.txt from pyproject.toml, with hashes and without download URLs
	$(COMPILE) --output-file requirements/serve.txt
	$(COMPILE) --group gpu --group import --output-file requirements/gpu.txt
	$(COMPILE) --group import --group int8 --group dev --output-file requirements/dev.txt
