# Each command sets up what it needs in .venv; nothing is installed elsewhere.

PYTHON ?= python3
BIN := .venv/bin
OLD_BIN := .venv-old-client/bin
NEW_BIN := .venv-new-client/bin
# Tests without a socket, an engine or a pause.
UNIT_TESTS := tests/unit
# Each of these modules is covered whole by its own unit tests.
COVERED := $(patsubst newshead/%.py,%,$(filter-out %/__init__.py,$(wildcard newshead/core/*.py))) \
	tws/link tws/subscriptions
# The tests start hundreds of processes, which otherwise compile newshead anew, each time.
unexport PYTHONDONTWRITEBYTECODE
CLIENT_TESTS := tests/unit/tws $(addprefix tests/live/,test_fast_ticks.py test_ibkr_client.py test_bars_from_tws.py test_simulator.py)

# What is needed, or one sentence; then an empty environment.
define environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "newshead needs Python 3.11 or later, but $(PYTHON) is " + sys.version.split()[0] + ": name another one, as in `make PYTHON=python3.12 $(firstword $(MAKECMDGOALS))`.")'
@echo "Setting up $(1) (once, and again when the requirements change):"
@echo "  making an environment with $(PYTHON) ..."
@$(PYTHON) -m venv $(1)
endef

.PHONY: demo test quick unit test-old-client test-new-client coverage soak bench lint format clean

demo: .venv/runtime
	$(BIN)/python run_system.py --demo

test: .venv/dev
	$(BIN)/python -m pytest -n 5 --dist worksteal

# What to run after every change: under 30 s on two cores.
quick: .venv/dev
	$(MAKE) -j2 lint unit

unit: .venv/dev
	$(BIN)/python -m pytest -q $(UNIT_TESTS)

# First what must be covered whole, lines and branches: fails with the lines that are missed. Then
# everything by all tests.
coverage: .venv/dev
	for module in $(COVERED); do \
		$(BIN)/python -m pytest -q tests/unit/$${module%/*}/test_$${module##*/}.py \
			--cov=newshead.$$(echo $$module | tr / .) --cov-report=term-missing \
			--cov-fail-under=100 || exit 1; \
	done
	$(BIN)/python -m pytest -n 5 --dist worksteal --cov --cov-report=term

test-old-client: .venv-old-client/dev
	$(OLD_BIN)/python -m pytest $(CLIENT_TESTS)

test-new-client: .venv-new-client/dev
	$(NEW_BIN)/python -m pytest $(CLIENT_TESTS)

soak: .venv/dev
	$(BIN)/python tests/soak.py

bench: .venv/dev
	$(BIN)/python -m benchmarks

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-old-client .venv-new-client .mypy_cache .pytest_cache .ruff_cache .coverage*

.venv/runtime: requirements.txt
	$(call environment,.venv)
	@echo "  installing what newshead runs on: about 1 GB on disk, a few minutes ..."
	@$(BIN)/pip install --quiet -r requirements.txt
	@touch $@

.venv/dev: requirements.txt requirements-dev.txt
	$(call environment,.venv)
	@echo "  installing that and the tools for tests: about 1.3 GB on disk, a few minutes ..."
	@$(BIN)/pip install --quiet -r requirements-dev.txt
	@touch $@

.venv-old-client/dev: requirements-old-client.txt requirements-client-tests.txt
	$(call environment,.venv-old-client)
	@echo "  installing the oldest supported client and the tools for its tests ..."
	@$(OLD_BIN)/pip install --quiet -r requirements-old-client.txt
	@touch $@

# The library alone, by its hash; then what it declares, as newshead has it.
.venv-new-client/dev: requirements-new-client.txt requirements-client-tests.txt requirements.txt
	$(call environment,.venv-new-client)
	@echo "  installing a newer client and the tools for its tests ..."
	@$(NEW_BIN)/pip install --quiet --no-deps --require-hashes -r requirements-new-client.txt
	@$(NEW_BIN)/pip install --quiet -r requirements-client-tests.txt -c requirements.txt protobuf
	@touch $@
