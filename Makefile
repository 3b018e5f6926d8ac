# `make help` lists what there is. Everything lives in .venv, which follows requirements/.

VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --no-input
# Stamps named after what they stand for: when the requirements change, the name does, and pip runs.
BASE := $(VENV)/.base-$(shell cat requirements/base.txt | cksum | cut -d' ' -f1)
DEV := $(VENV)/.dev-$(shell cat requirements/base.txt requirements/dev.txt | cksum | cut -d' ' -f1)
# The peer of the benchmarks, in an environment of its own.
PEER := .venv-pipecat/.made-$(shell cat benchmarks/requirements-pipecat.txt | cksum | cut -d' ' -f1)
# Tests of one file stay in one process, since they share what they started.
PYTEST := $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test bench lint types imports migrations deploy-check check

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

run: $(BASE) ## Everything on http://127.0.0.1:5004, no setting needed
	@exec $(PY) -m callcenter.run

test: $(DEV) ## The whole test suite (PYTEST_ARGS='-k greeting' chooses)
	$(PYTEST) $(PYTEST_ARGS)

bench: $(DEV) $(PEER) ## What a call costs, beside a bare relay and a peer (20 minutes, two cores)
	$(PY) -m benchmarks.relay $(BENCH_ARGS)

lint: $(DEV) ## Style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(DEV) ## Types
	$(PY) -m mypy

imports: $(DEV) ## Who may import whom
	$(VENV)/bin/lint-imports

migrations: $(DEV) ## Whether the models have all their migrations
	DJANGO_SETTINGS_MODULE=tests.settings $(PY) manage.py makemigrations --check --dry-run

# A key as Vonage makes them, for this check only.
define NEW_KEY
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import rsa
key = rsa.generate_private_key(65537, 2048)
print(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode())
endef
export NEW_KEY

deploy-check: $(DEV) ## What Django thinks of a production environment
	@key=$$($(PY) -c "$$NEW_KEY") && env DEBUG=0 TRUST_PROXY=1 \
	  SECRET_KEY=$$(head -c 48 /dev/urandom | base64 | tr -d '+/=\n') \
	  PUBLIC_URL=https://calls.example.com MEDIA_URL= ALLOWED_HOSTS= CSRF_TRUSTED_ORIGINS= \
	  DATABASE_URL=postgres://callcenter@127.0.0.1/callcenter REDIS_URL=redis://127.0.0.1 \
	  AI_PROVIDER=openai OPENAI_API_KEY=example VONAGE_API_KEY=example \
	  VONAGE_APPLICATION_ID=00000000-0000-4000-8000-000000000000 \
	  VONAGE_SIGNATURE_SECRET=example VONAGE_PRIVATE_KEY="$$key" \
	  $(PY) manage.py check --deploy --fail-level WARNING

check: lint types imports migrations deploy-check test ## All of these

$(BASE): | $(PY)
	@echo "Installing what runs it (a minute or two) …"
	@$(PIP_INSTALL) -r requirements/base.txt
	@rm -f $(VENV)/.base-* && touch $@

$(DEV): | $(PY)
	@echo "Installing what tests it (a minute or two) …"
	@$(PIP_INSTALL) -r requirements/dev.txt
	@rm -f $(VENV)/.dev-* && touch $@

$(PEER): | $(PY)
	@echo "Installing the peer of the benchmarks (a minute or two) …"
	@$(PY) -m venv --clear .venv-pipecat
	@.venv-pipecat/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	  -r benchmarks/requirements-pipecat.txt
	@touch $@

# PYTHON=… names another interpreter than the first one found.
$(PY):
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
	      2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$python" --version) …"; \
	    exec "$$python" -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo "No Python 3.11 or later with venv and pip was found (tried:" \
	  "$(PYTHON) python3.13 python3.12 python3.11 python3)." >&2; \
	echo "Install one (on Debian: apt-get install python3 python3-venv)," \
	  "or name it: make PYTHON=/path/to/python …" >&2; \
	exit 1
