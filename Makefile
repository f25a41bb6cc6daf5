# Each target sets up its virtual environments inside the clone.
PYTHON ?= python3
ARCHITECTURE ?= arm64
PIP = pip --disable-pip-version-check --quiet
# Prints its progress, for the first installation.
VERBOSE_PIP = pip --disable-pip-version-check
# The first pip that supports dependency groups: pip.pypa.io/en/stable/news/#v25-1
GROUPS = 'pip>=25.1'
BIN = .venv/bin
TOOLS = .venv-tools/bin
RELEASE = .venv-release/bin
CHECKOV = .venv-checkov/bin/checkov --skip-download --quiet --compact --framework cloudformation
# sam and its tools contact no AWS service and ignore the AWS profile of the shell.
OFFLINE = env -u AWS_PROFILE -u AWS_DEFAULT_PROFILE SAM_CLI_TELEMETRY=0 AWS_EC2_METADATA_DISABLED=true AWS_DEFAULT_REGION=us-east-1

.PHONY: help demo docs test test-slow fuzz mutation coverage lint lint-code lint-templates lint-workflows lint-secrets audit dist release-files build lock build-Function build-mirror build-Freshen build-Reprocessing bundle-report bundle-test release-check e2e soak bench cost s3-matrix sam-local conformance format clean

help:
	@echo "make demo    process one exposure of every kind on an embedded AWS and print the results"
	@echo "             (make demo FILE=x_uncal.fits CRDS_PATH=crds_cache: your own exposure)"
	@echo "make docs    build the documentation site; open build/docs/html/index.html"
	@echo "make test    run the tests that take at most a second each; make test-slow: the others"
	@echo "make coverage"
	@echo "             run the tests and print the lines and branches that no test runs"
	@echo "make mutation MUTANTS=200 SEED=0 MINUTES=25"
	@echo "             change core/ and handler/ at random; print the changes that no test notices"
	@echo "make fuzz    damage 10,000 headers per kind of file and compare with astropy (CASES=...);"
	@echo "             repeat the random tests of the mirror and of reprocessing (SEEDS=60)"
	@echo "make lint    check style, types, words, imports, templates, state machines, workflows"
	@echo "             and that no file contains a key or token"
	@echo "make audit   search for known vulnerabilities of the packages that the bundles contain"
	@echo "make dist    build and check wheel and sdist; make release-files: also the templates with"
	@echo "             their bundles, SBOM and checksums, in build/dist"
	@echo "make build   build the bundle for Lambda (ARCHITECTURE=arm64 or x86_64); make bundle-report"
	@echo "             prints its size by package, make bundle-test runs it as Lambda does"
	@echo "make lock UPGRADE=1"
	@echo "             lock the newest versions for the bundle"
	@echo "make e2e     deploy the template on a local AWS and test it; make soak: 2,000 exposures"
	@echo "make release-check"
	@echo "             run lint, all tests, build, bundle-test and e2e in a clean clone"
	@echo "make s3-matrix"
	@echo "             run the handler's tests on localstack's S3 over TLS and on Ceph's"
	@echo "make sam-local"
	@echo "             run sam local invoke and sam local start-lambda, if Docker is available"
	@echo "make bench   measure bytes, memory and CPU time, side by side with jwst (15 minutes)"
	@echo "make cost    measure the cost of an exposure on the model of S3; writes docs/reference/cost.md"
	@echo "make conformance SEEDS=1000"
	@echo "             compare with jwst over every mode and that many random cases"
	@echo "             (make conformance JWST=1.20.2: with another release of jwst, or main)"

.venv/made:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python >= 3.11 is needed: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv .venv
	$(BIN)/$(PIP) install $(GROUPS)
	@touch $@

.venv/demo: .venv/made pyproject.toml
	@echo "Setting up .venv, once: downloads some 100 MB, writes 430 MB, takes a minute"
	@$(BIN)/$(VERBOSE_PIP) install --editable '.[demo]'
	@touch $@

.venv/dev: .venv/made pyproject.toml
	@echo "Setting up .venv, once: downloads some 180 MB, writes 600 MB, takes two minutes"
	@$(BIN)/$(VERBOSE_PIP) install --editable '.[demo]' --group dev
	@touch $@

# aws-sam-cli and checkov pin their dependencies, and those of a release need another click.
OF_TOOLS = tools checkov release
$(OF_TOOLS:%=.venv-%/done): .venv-%/done: pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/$(PIP) install $(GROUPS)
	.venv-$*/bin/$(PIP) install --group $*
	@touch $@

.venv-docs/done: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/$(PIP) install $(GROUPS)
	.venv-docs/bin/$(PIP) install --editable '.[reprocess]' --group docs
	@touch $@

# CRDS_PATH of the environment is used only with FILE; on the command line it needs FILE.
OWN_CACHE = $(if $(FILE)$(filter command,$(origin CRDS_PATH)),$(CRDS_PATH))
quoted = '$(subst ','\'',$(1))'

demo: .venv/demo
	@$(BIN)/python -m infra.demo $(if $(FILE),--file $(call quoted,$(FILE))) $(if $(OWN_CACHE),--crds-path $(call quoted,$(OWN_CACHE)))

# Everything is read again, because pages are generated from files outside docs/.
docs: .venv-docs/done
	.venv-docs/bin/sphinx-build --quiet --fresh-env --nitpicky --fail-on-warning --keep-going \
	  --doctree-dir build/docs/doctrees docs build/docs/html
	@echo "The site: build/docs/html/index.html"

test: .venv/dev
	$(BIN)/python -m pytest -m 'not slow'

# Faults, kills and denials at every call, whole commands, browsers: ten minutes.
test-slow: .venv/dev
	$(BIN)/python -m pytest -m slow

# Random small changes of core/ and handler/; lists those that no test notices.
mutation: .venv/dev
	$(BIN)/python -m tests.mutation --mutants $(or $(MUTANTS),200) --seed $(or $(SEED),0) --minutes $(or $(MINUTES),25)

# The tests, with the lines and branches that none of them runs.
coverage: .venv/dev
	$(BIN)/python -m pytest --cov --cov-report=term $(TESTS)

# Damaged headers of every kind of file, compared with astropy; other random tests.
fuzz: .venv/dev
	FUZZ_CASES=$(or $(CASES),10000) $(BIN)/python -m pytest -n 0 -s tests/core/test_fuzz.py
	TEST_SEEDS=$(or $(SEEDS),60) $(BIN)/python -m pytest tests/infra/test_mirror.py tests/infra/test_reprocess.py \
	  tests/infra/test_local_processes.py tests/scenarios/test_intent.py

# The hooks of .pre-commit-config.yaml run the same targets.
lint: lint-code lint-templates lint-workflows lint-secrets

lint-code: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell core handler infra docs README.md CHANGELOG.md template.yaml
	$(BIN)/codespell --check-hidden .github

lint-templates: .venv/dev .venv-tools/done .venv-checkov/done
	@mkdir -p build
	for template in template.yaml infra/mirror.yaml; do \
	  transformed=build/$$(basename $$template .yaml).transformed.json && \
	  $(OFFLINE) $(TOOLS)/python tests/lint/transform.py $$template > $$transformed && \
	  $(TOOLS)/cfn-lint $$template $$transformed && \
	  $(CHECKOV) --file $$template && $(CHECKOV) --file $$transformed && \
	  $(TOOLS)/python tests/lint/state_machines.py $$template || exit 1; done

lint-workflows: .venv-tools/done
	$(TOOLS)/actionlint -shellcheck $(TOOLS)/shellcheck
	$(TOOLS)/shellcheck .ci/run
	$(TOOLS)/zizmor --offline --quiet .github

# Without the plugins that guess: digests look random, and tests have passwords of emulators.
lint-secrets: .venv-tools/done
	git ls-files -z | xargs -0 $(TOOLS)/detect-secrets-hook --no-verify --disable-plugin Base64HighEntropyString \
	  --disable-plugin HexHighEntropyString --disable-plugin KeywordDetector

# Fails, too, if PyPI's advisories cannot be read: a package that was not checked is not safe.
audit: .venv-release/done
	$(RELEASE)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
	  --requirement infra/bundle/requirements.lock --requirement infra/bundle/reprocess.lock

# Wheel and sdist: the same commit gives the same bytes.
dist: .venv-release/done .venv-tools/done
	rm -rf build/dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(RELEASE)/hatchling build --directory build/dist
	$(RELEASE)/twine check --strict build/dist/*
	$(RELEASE)/check-wheel-contents build/dist/*.whl
	$(TOOLS)/uvx --quiet --from cffconvert==2.0.0 cffconvert --validate

# What a release offers: wheel, sdist, the built templates with their bundles (unpack, then
# `sam deploy`), the SBOMs of the bundles, and checksums. Needs GNU tar. For arm64, the default of
# the templates: a built template does not know the architecture of its bundle.
release-files: dist
	$(MAKE) build build-mirror ARCHITECTURE=arm64
	tar --create --gzip --file build/dist/jwst-dq-init-lambda-arm64.tar.gz \
	  --sort=name --mtime=@$$(git log -1 --format=%ct) --owner=0 --group=0 --numeric-owner --mode=go+rX-w \
	  .aws-sam/build .aws-sam/mirror infra/state_machines LICENSE README.md CHANGELOG.md
	for lock in requirements reprocess; do \
	  $(RELEASE)/cyclonedx-py requirements infra/bundle/$$lock.lock --pyproject pyproject.toml \
	    --output-reproducible --output-file build/dist/$$lock.cdx.json || exit 1; done
	cd build/dist && sha256sum * > SHA256SUMS

# For Lambda on arm64; ARCHITECTURE=x86_64 also for the tests on this machine.
build: .venv/dev .venv-tools/done
	$(OFFLINE) ARCHITECTURE=$(ARCHITECTURE) $(TOOLS)/sam build --build-in-source --parameter-overrides Architecture=$(ARCHITECTURE)

# Called by sam build.
build-Function:
	$(BIN)/python -m infra.bundle build --architecture $(ARCHITECTURE) --into '$(ARTIFACTS_DIR)'

build-mirror: .venv/dev .venv-tools/done
	$(OFFLINE) ARCHITECTURE=$(ARCHITECTURE) $(TOOLS)/sam build --build-in-source --template infra/mirror.yaml --build-dir .aws-sam/mirror --parameter-overrides Architecture=$(ARCHITECTURE)

build-Freshen:
	$(BIN)/python -m infra.bundle build --architecture $(ARCHITECTURE) --into '$(ARTIFACTS_DIR)' --with infra/mirror infra/aws.py infra/cli.py

build-Reprocessing:
	$(BIN)/python -m infra.bundle build --architecture $(ARCHITECTURE) --into '$(ARTIFACTS_DIR)' --reprocess \
	  --with infra/mirror infra/reprocess infra/jobs infra/operate infra/aws.py infra/cli.py

# UPGRADE=1 locks the newest versions that pyproject.toml allows; without it, locked versions stay.
lock: .venv-tools/done
	$(TOOLS)/uv pip compile pyproject.toml --quiet --python-version 3.13 --generate-hashes --no-header \
	  $(if $(UPGRADE),--upgrade) --output-file infra/bundle/requirements.lock
	$(TOOLS)/uv pip compile pyproject.toml --quiet --python-version 3.13 --generate-hashes --no-header \
	  --group reprocessing-function --constraint infra/bundle/requirements.lock --no-emit-package jwst-dq-init-lambda \
	  $(if $(UPGRADE),--upgrade) --output-file infra/bundle/reprocess.lock

bundle-report: build
	$(BIN)/python -m infra.bundle report .aws-sam/build/Function

# Built for this machine (x86_64), unlike the bundle of make build.
e2e: .venv-ministack/done
	$(MAKE) build build-mirror ARCHITECTURE=x86_64
	$(BIN)/python -m pytest -n 0 tests/e2e

# Check whether the commit can be released: test, build and deploy to the local AWS in a clean clone.
release-check:
	rm -rf build/release
	git clone --quiet . build/release
	$(MAKE) -C build/release lint test test-slow build bundle-report bundle-test e2e
	@cd build/release && $(BIN)/python -c "import core; print('version', core.__version__, 'can be released')"

# Environments with the Python of the Lambda runtime: AWS's runtime client, local AWSs, and jwst for
# comparison.
ON_TARGET = runtime localstack jwst ministack
$(ON_TARGET:%=.venv-%/done): .venv-%/done: pyproject.toml .venv/dev
	target=$$($(BIN)/python -m infra.bundle python) && $$target -m venv .venv-$*
	.venv-$*/bin/$(PIP) install $(GROUPS)
	.venv-$*/bin/$(PIP) install --group $*
	@touch $@

bundle-test: .venv-runtime/done .venv-tools/done
	$(MAKE) build build-mirror ARCHITECTURE=x86_64
	$(BIN)/python -m pytest -n 0 tests/bundle

soak: .venv-ministack/done
	$(MAKE) build ARCHITECTURE=x86_64
	$(BIN)/python -m tests.e2e.soak
	$(BIN)/python -m tests.e2e.archive

bench: .venv-jwst/done .venv-ministack/done .venv-runtime/done .venv-tools/done
	$(MAKE) build ARCHITECTURE=x86_64
	$(BIN)/python -m tests.benchmark --jwst .venv-jwst/bin/python --ministack .venv-ministack/bin/python

# Requests, seconds and bytes of an exposure on the model of S3; writes docs/reference/cost.md and
# infra/cost/measured.json.
cost: .venv-runtime/done .venv-tools/done
	$(MAKE) build ARCHITECTURE=x86_64
	$(BIN)/python -m tests.benchmark.cost

# The handler on localstack's S3, over TLS as on AWS, and on Ceph's.
s3-matrix: .venv-localstack/done
	@mkdir -p build
	$(BIN)/python -m tests.s3_matrix --localstack .venv-localstack/bin/python --ceph build/ceph

# The commands of docs/how-to/local.md, if a container engine is available.
sam-local: .venv-ministack/done .venv-runtime/done .venv-tools/done
	$(MAKE) build ARCHITECTURE=x86_64
	$(BIN)/python -m tests.sam_local --runtime .venv-runtime/bin/python

# JWST=1.20.2, or JWST=main for its development version: another release, in an environment of its own.
OF_JWST = .venv-jwst$(addprefix -,$(JWST))
conformance: $(OF_JWST)/done
	$(if $(JWST),,$(BIN)/python -m pytest -n 0 tests/conformance)
	$(BIN)/python -m tests.conformance --jwst $(OF_JWST)/bin/python --seeds $(or $(SEEDS),300) \
	  --every $(or $(EVERY),1) $(if $(JWST),--release $(JWST))

# Up to 1.17, jwst fails with crds 13, which imports a module that their stdatamodels lack.
.venv-jwst-%/done: pyproject.toml .venv/dev .venv-tools/done
	python=$(if $(filter 1.%,$*),3.11,$$($(BIN)/python -m infra.bundle python)) && \
	  $(TOOLS)/uv venv --quiet --clear --python $$python .venv-jwst-$*
	$(TOOLS)/uv pip install --quiet --python .venv-jwst-$* pysiaf \
	  $(if $(filter main,$*),git+https://github.com/spacetelescope/jwst,jwst==$*) \
	  $(if $(filter 1.14.% 1.15.% 1.16.% 1.17.%,$*),'crds<13')
	@touch $@

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-docs $(OF_TOOLS:%=.venv-%) $(ON_TARGET:%=.venv-%) .venv-jwst-* build .aws-sam *.egg-info
	@if [ -d demo-output ]; then echo "demo-output is kept, because it may contain your files (rm -r demo-output)"; fi
