# Each target sets up what it needs in virtual environments inside the clone.
PYTHON ?= python3
PIP = pip --disable-pip-version-check --quiet
BIN = .venv/bin
TOOLS = .venv-tools/bin

.PHONY: help demo test lint bench conformance format clean

help:
	@echo "make demo    process one exposure of every kind on an embedded AWS, and show the result"
	@echo "             (make demo FILE=x_uncal.fits CRDS_PATH=crds_cache: your own exposure)"
	@echo "make test    run the tests"
	@echo "make lint    check style, types and the template"
	@echo "make bench   measure bytes, memory and CPU time, side by side with jwst (some 15 minutes)"
	@echo "make conformance SEEDS=1000"
	@echo "             compare with jwst over every mode and as many random cases"

.venv/pip:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python >= 3.11 is needed: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv .venv
	@touch $@

.venv/demo: .venv/pip pyproject.toml
	$(BIN)/$(PIP) install --editable '.[demo]'
	@touch $@

.venv/dev: .venv/pip pyproject.toml
	$(BIN)/$(PIP) install --editable '.[dev]'
	@touch $@

# aws-sam-cli pins what it depends on, and so has an environment of its own.
.venv-tools/done: tests/lint-requirements.txt
	$(PYTHON) -m venv .venv-tools
	$(TOOLS)/$(PIP) install --requirement $<
	@touch $@

demo: .venv/demo
	@$(BIN)/python -m infra.demo $(if $(FILE),--file '$(FILE)') $(if $(CRDS_PATH),--crds-path '$(CRDS_PATH)')

test: .venv/dev
	$(BIN)/python -m pytest

lint: .venv/dev .venv-tools/done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TOOLS)/cfn-lint template.yaml
	SAM_CLI_TELEMETRY=0 AWS_EC2_METADATA_DISABLED=true AWS_DEFAULT_REGION=us-east-1 $(TOOLS)/sam validate --lint --template template.yaml

bench: .venv/dev .venv-jwst/done .venv-ministack/done
	$(BIN)/python -m tests.benchmark --jwst .venv-jwst/bin/python --ministack .venv-ministack/bin/python

conformance: .venv/dev .venv-jwst/done
	$(BIN)/python -m tests.conformance --jwst .venv-jwst/bin/python --seeds $(or $(SEEDS),200)

# What the figures and the equality are measured against; never a dependency of the product.
.venv-jwst/done: tests/jwst-requirements.txt
	$(PYTHON) -m venv .venv-jwst
	.venv-jwst/bin/$(PIP) install --requirement $<
	@touch $@

.venv-ministack/done: tests/benchmark/requirements.txt
	$(PYTHON) -m venv .venv-ministack
	.venv-ministack/bin/$(PIP) install --requirement $<
	@touch $@

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-tools .venv-jwst .venv-ministack demo-output build .aws-sam *.egg-info
