# Two commands do all the set-up: `make demo` and `make test`. Both need make, Python 3.11 and pip, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The system's pip installs into the environment: Debian's Python brings venv, but no pip for it to copy.
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check install --quiet --no-deps

RUNTIME := $(VENV)/.runtime
TESTING := $(VENV)/.testing
FIGURES := $(VENV)/.figures
BENCHING := $(VENV)/.benching
WALLETS := $(VENV)/.wallets
BDK := $(VENV)/.bdk

.PHONY: install demo test model check lint types floors format pins bench brute soak mutants sim sim-check clean
.DELETE_ON_ERROR:

install: $(RUNTIME)

demo: $(RUNTIME)
	$(BIN)/bitwrk demo $(DEMO)

test: $(TESTING)
	$(BIN)/python -m pytest $(TESTS)

# The agreement of two and three nodes in every order of events; the tests explore the smaller of these worlds. Minutes.
model: $(TESTING)
	$(BIN)/python -m tests.orderbook.settings

# What a maintainer runs before a commit.
check: lint types floors test

lint: $(TESTING)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(TESTING)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(TESTING)
	$(BIN)/mypy

floors: $(TESTING)
	$(BIN)/lint-imports

# The simulator itself needs nothing more; figures need matplotlib.
sim: $(FIGURES)

# Longer runs than the tests make: every scenario with expectations is compared, the rough ones are swept.
sim-check: $(FIGURES)
	for one in f1 f4 gossip-1m kademlia-1m; do $(BIN)/bitwrk-sim compare $$one || exit 1; done
	for one in smoke loss crash-restart adversaries partition; do $(BIN)/bitwrk-sim sweep $$one --seeds 1..4 || exit 1; done
	$(BIN)/bitwrk-sim compare market-2000

bench: $(TESTING) $(BENCHING)
	$(BIN)/python -m tests.bench $(BENCH)

# The auction on every small book there is, some minutes: quantity and price by brute force, and the literal rules.
brute: $(TESTING)
	$(BIN)/python -m tests.brute

# Real nodes for minutes: docs/testing.md.
MINUTES ?= 5
SEED ?= 1
soak: $(TESTING)
	$(BIN)/python -m tests.soak --minutes $(MINUTES) --seed $(SEED) $(SOAK)

mutants: $(TESTING)
	$(BIN)/python -m tests.mutants $(MUTANTS)

$(RUNTIME): requirements/build.txt requirements/runtime.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	$(PIP) --require-hashes -r requirements/build.txt
	$(PIP) --require-hashes --no-build-isolation -r requirements/runtime.txt
	$(PIP) --no-build-isolation --editable .
	touch $@

# trio-typing, which libp2p imports, brings stale stubs of trio that mislead mypy; only that folder is dropped.
$(TESTING): $(RUNTIME) requirements/test.txt
	$(PIP) --require-hashes -r requirements/test.txt
	rm -rf $(VENV)/lib/python3*/site-packages/trio-stubs
	touch $@

$(FIGURES): $(RUNTIME) requirements/sim.txt
	$(PIP) --require-hashes -r requirements/sim.txt
	touch $@

# Other people's engines, which only measurements need.
$(BENCHING): $(RUNTIME) requirements/bench.txt
	$(PIP) --require-hashes -r requirements/bench.txt
	touch $@

# For maintainers, needs uv: choose versions anew and write their hashes down, without any address.
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --override requirements/overrides.txt
pins:
	$(COMPILE) requirements/build.in -o requirements/build.txt
	$(COMPILE) requirements/runtime.in -o requirements/runtime.txt
	$(COMPILE) requirements/test.in -o requirements/test.txt
	$(COMPILE) requirements/sim.in -o requirements/sim.txt
	$(COMPILE) requirements/bench.in -o requirements/bench.txt
	$(COMPILE) requirements/bdk.in -o requirements/bdk.txt
	$(COMPILE) requirements/wallets.in -o requirements/wallets.txt

clean:
	rm -rf $(VENV) demo-out bench-out soak-out mutants-out dist

# --- sandboxes and Blender --------------------------------------------------------------------------------------------------------
# What is not there is installed where that is possible: by apt-get as the super-user, by pip into an environment of its own.
BPY := .venv-bpy
.PHONY: addon test-sandbox test-blender bubblewrap
addon:
	$(PYTHON) blender/build.py dist

bubblewrap:
	command -v bwrap >/dev/null || (apt-get update && apt-get install --yes --no-install-recommends bubblewrap)

test-sandbox: $(TESTING) bubblewrap
	BITWRK_REQUIRE_SANDBOX=1 $(BIN)/python -m pytest tests/sandbox $(TESTS)

$(BPY)/.installed: requirements/blender.txt
	test -x $(BPY)/bin/python || $(PYTHON) -m venv --without-pip $(BPY)
	$(PYTHON) -m pip --python $(BPY)/bin/python --disable-pip-version-check install --quiet --require-hashes -r requirements/blender.txt
	touch $@

test-blender: $(TESTING) $(BPY)/.installed bubblewrap
	command -v blender >/dev/null || (apt-get update && apt-get install --yes --no-install-recommends blender)
	BITWRK_REQUIRE_SANDBOX=1 BITWRK_BLENDERS="$$(command -v blender):$(CURDIR)/$(BPY)/bin/python" \
		$(BIN)/python -m pytest tests/blender tests/sandbox $(TESTS)

# --- a second opinion on the escrow ----------------------------------------------------------------------------------------------
# bcoin, in JavaScript, judges what libbitcoinkernel judges. No package of it runs a script while it is installed.
BCOIN := tests/bcoin/node_modules
.PHONY: node test-bcoin test-descriptors vectors fuzz
node:
	command -v npm >/dev/null || (apt-get update && apt-get install --yes --no-install-recommends nodejs npm)

$(BCOIN)/.package-lock.json: tests/bcoin/package.json | node
	cd tests/bcoin && npm install --ignore-scripts --no-package-lock --no-audit --no-fund --loglevel=error
	touch $@

test-bcoin: $(TESTING) $(BCOIN)/.package-lock.json
	BITWRK_REQUIRE_BCOIN=1 $(BIN)/python -m pytest tests/bcoin $(TESTS)

# A kill at every boundary of every session, a reorganisation under every step on the chain, random lives with a liar: some minutes.
.PHONY: matrix
matrix: $(TESTING)
	$(BIN)/python -m tests.matrix

# A thousand units between two processes through one escrow, a minute or two: exact balances, and what the chain took.
.PHONY: thousand
thousand: $(TESTING)
	$(BIN)/python -m tests.thousand

# Public vectors for transactions and signatures: how many rows apply, by which rule, and how many agree.
vectors: $(TESTING)
	$(BIN)/python -m tests.escrow.core_vectors

# Spends bent in every way, our opinion against the kernel's. `make fuzz FUZZ="--seed 7 --spends 300000"` is another, longer run.
fuzz: $(TESTING)
	$(BIN)/python -m tests.fuzz $(FUZZ)

$(WALLETS): $(TESTING) requirements/wallets.txt
	$(PIP) --require-hashes --no-build-isolation -r requirements/wallets.txt
	touch $@

# BDK and embit derive from our descriptors what we derive, and take a refund with nothing else.
test-descriptors: $(WALLETS)
	BITWRK_REQUIRE_WALLETS=1 $(BIN)/python -m pytest tests/wallets $(TESTS)

# The extra: BDK's clients for chains behind Esplora and Electrum servers, and nodes that settle there.
.PHONY: bdk test-bdk
bdk: $(BDK)

$(BDK): $(RUNTIME) requirements/bdk.txt
	$(PIP) --require-hashes -r requirements/bdk.txt
	touch $@

test-bdk: $(TESTING) $(BDK)
	BITWRK_REQUIRE_BDK=1 $(BIN)/python -m pytest tests/bdk $(TESTS)
