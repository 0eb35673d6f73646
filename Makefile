# SPDX-License-Identifier: Apache-2.0
#
#   make demo     packets of a capture through several processes, one of which is killed on the way
#   make test     the tests, less the slow ones: some minutes
#   make test-all  all tests, as CI runs them
#   make lint     format, lint and types
#   make format   the C code as .clang-format and .ci/format lay it out
#   make bench    nanoseconds, packets per second, growth; into build/results
#   make bench-peers   the same questions to other ways between processes, in an environment under build/
#   make bench-topics  topics whose subscribers come, go and are killed, video to several, and calls, beside others; in the
#                      environment of bench-peers; under four minutes; ARGS=--quick
#   make neighbours    programs of other projects with our queues and pipes in them, in an environment under build/; minutes
#   make bench-bridge    bridges beside the bare engine that moves their messages, and idle ones; ARGS=--quick
#   make bench-pipelines    what a stage of a pipeline costs, and pipelines beside pools of processes; ARGS=--quick
#   make bench-neighbours   such programs with ours beside the same with multiprocessing's; ARGS=--quick
#   make bench-check   fails where something became slower than in benchmarks/results
#   make bench-docs    measures everything anew, into benchmarks/results and docs/performance.md; about eight minutes
#   make callgrind     instructions of the hot operations against benchmarks/callgrind.json, and of hosted calls against
#                      those of what stands alone; needs valgrind
#   make verifier   BPF programs by every clang here, -mcpu and level: what the kernel says of them; as root
#   make wheels   what a release consists of, into dist/, each wheel audited, installed without a compiler and tried; half an
#                 hour, and Pythons that are not there are built; ARGS="--only x86_64-gnu --on 3.11"
#   make docs     the documentation, into build/docs; looked at in Chromium, where there is one
#   make cookbook     each recipe of docs/cookbook.md, with the libraries that they need, in an environment under build/
#   make fuzz     damaged pools, for SECONDS=60; needs clang and its runtime (Debian: libclang-rt-dev)
#   make kill     a process is killed wherever an operation leaves something else behind, and its rescuer too; ARGS="--only put"
#   make kill-pipelines  five pipelines whose source and stages are killed at random, SECONDS=600 each, then Ctrl-C fifty times;
#                      SEED=1, ARGS="--interrupts 50 --only batch"; 55 minutes
#   make mutants  small changes to the sources, each of which a test must find; docs/testing.md; ARGS="--files put --count 9"
#   make bridge-faults   network namespaces with bridges between them, links cut, bridges killed; as root; minutes;
#                      ARGS="--only killed --carrier zmq --kills 1000"
#   make soak     many processes at random work, killed at random, in C and in Python; SECONDS=3600 SEED=1 WORKERS=8
#
# Needs git, Python >= 3.11 and a C compiler; everything else is installed into .venv by pip. A change of a C
# file or of pyproject.toml rebuilds on the next call, a change of a Python file needs nothing.

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
ARGS   ?=
SECONDS ?= 60
SEED    ?=
WORKERS ?= 6

BIN    := $(VENV)/bin
TIDY   := xargs -n 8 -P $(JOBS) $(BIN)/clang-tidy --quiet -p
PEERS  := build/peers
NEIGHBOURS := build/neighbours
COOKBOOK := build/cookbook
OPTIONAL := $(addprefix $(VENV)/.group-,engines web examples browser)
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# The tests start hundreds of interpreters: each would compile what it imports, were bytecode not written.
TEST   := PYTHONDONTWRITEBYTECODE= PYTHONDEVMODE=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup
NATIVE := $(wildcard ssm/src/*.h ssm/src/*/*.[ch] allocators/src/*.[ch] allocators/src/binding/*.[ch]) \
          $(wildcard cmake/*) CMakeLists.txt pyproject.toml

export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo test test-all lint format bench bench-bridge bench-pipelines bench-peers bench-topics neighbours bench-neighbours bench-check bench-docs callgrind verifier bridge-faults docs cookbook fuzz fuzz-corpus kill kill-pipelines mutants soak wheels clean install
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/ssm demo --kill-parser 1 $(ARGS)

test: $(VENV)/.installed $(VENV)/.group-test $(OPTIONAL)
	$(TEST) -m 'not slow' $(ARGS)

test-all: $(VENV)/.installed $(VENV)/.group-test $(OPTIONAL)
	SSM_TEST_ALL=1 $(TEST) $(ARGS)

lint: $(VENV)/.installed $(VENV)/.group-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/python -m mypy.stubtest --allowlist .ci/stubtest-allowlist --ignore-unused-allowlist \
	  ssm._core allocators._core
	$(BIN)/python .ci/format --check
	$(BIN)/cmake --preset dev >/dev/null
	git ls-files 'ssm/src/*.c' 'allocators/src/*.c' 'tests/c/*.c' 'tests/crash/*.c' 'tests/fuzz/*.c' ':!*/binding/*' | $(TIDY) build/dev
	git ls-files '*/src/binding/*.c' | $(TIDY) $(firstword $(wildcard build/python/editable-*))

format: $(VENV)/.group-lint
	$(BIN)/python .ci/format

bench: $(VENV)/.installed $(VENV)/.group-bench
	$(BIN)/python -m benchmarks $(ARGS)
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.allocators
	$(BIN)/python -m benchmarks.pictures

bench-peers: $(PEERS)/.installed
	$(PEERS)/bin/python -m benchmarks.peers $(ARGS)
	$(PEERS)/bin/python -m benchmarks.pictures

bench-topics: $(PEERS)/.installed
	$(PEERS)/bin/python -m benchmarks.topics $(ARGS)
	$(PEERS)/bin/python -m benchmarks.calls $(ARGS)

neighbours: $(NEIGHBOURS)/.installed
	$(NEIGHBOURS)/bin/python -m pytest -q tests/neighbours/neighbours.py $(ARGS)

bench-neighbours: $(NEIGHBOURS)/.installed
	$(NEIGHBOURS)/bin/python -m benchmarks.in_place $(ARGS)

bench-pipelines: $(VENV)/.installed $(VENV)/.group-pools
	$(BIN)/python -m benchmarks.pipelines $(ARGS)

bench-bridge: $(VENV)/.installed $(VENV)/.group-engines
	$(BIN)/python -m benchmarks.bridge $(ARGS)

bench-check: $(VENV)/.installed $(VENV)/.group-bench
	$(BIN)/python -m benchmarks.check $(ARGS)

bench-docs: $(VENV)/.installed $(VENV)/.group-bench $(VENV)/.group-pools $(PEERS)/.installed
	$(BIN)/python -m benchmarks --record
	$(BIN)/python -m benchmarks.growth --record
	$(BIN)/python -m benchmarks.allocators --rounds 3 --docs
	$(PEERS)/bin/python -m benchmarks.peers --record
	$(BIN)/python -m benchmarks.pipelines --record
	if command -v valgrind >/dev/null; then $(BIN)/python -m benchmarks.callgrind --profile || true; fi
	$(BIN)/python -m benchmarks.pictures --docs
	$(BIN)/python -m benchmarks.performance

callgrind: $(VENV)/.installed
	$(BIN)/python -m benchmarks.callgrind $(ARGS)
	$(BIN)/python -m benchmarks.hosted

bridge-faults: $(VENV)/.installed $(VENV)/.group-engines
	$(BIN)/python -m tests.ssm.bridge.faults $(ARGS)

verifier: $(VENV)/.installed
	$(BIN)/python -m tests.allocators.bpf_matrix

docs: $(VENV)/.installed $(VENV)/.group-docs $(VENV)/.group-test $(VENV)/.group-browser
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going --builder html docs build/docs
	$(BIN)/python -m pytest -q tests/docs_site.py
	@echo build/docs/index.html

cookbook: $(COOKBOOK)/.installed
	$(COOKBOOK)/bin/python -m pytest -q tests/test_cookbook.py $(ARGS)

# Starts from tests/fuzz/corpus and keeps what is new in build/fuzz/corpus; what failed is build/fuzz/crash-... The
# address space is laid out plainly: AddressSanitizer of older compilers does not get along with the kernel's dice.
fuzz: $(VENV)/.group-build
	$(BIN)/cmake --preset fuzz
	$(BIN)/cmake --build --preset fuzz --target fuzz_pool
	mkdir -p build/fuzz/corpus
	$$(setarch -R true 2>/dev/null && echo setarch -R) build/fuzz/tests/fuzz/fuzz_pool -max_total_time=$(SECONDS) \
	  -max_len=500 -len_control=0 -timeout=10 -verbosity=0 -print_final_stats=1 -artifact_prefix=build/fuzz/ \
	  build/fuzz/corpus tests/fuzz/corpus

# What adds to the coverage, of both corpora, becomes the one in the repository; those named found-... stay.
fuzz-corpus: fuzz
	mkdir -p build/fuzz/kept
	$$(setarch -R true 2>/dev/null && echo setarch -R) build/fuzz/tests/fuzz/fuzz_pool -merge=1 -use_counters=0 \
	  build/fuzz/kept tests/fuzz/corpus build/fuzz/corpus
	find tests/fuzz/corpus -type f ! -name 'found-*' -delete
	mv build/fuzz/kept/* tests/fuzz/corpus/

mutants: $(VENV)/.installed $(VENV)/.group-test $(VENV)/.group-mutants
	$(BIN)/python -m tests.mutants $(SEED:%=--seed %) $(ARGS)

kill: crash-programs
	build/release/tests/crash/ssm_killer --markdown --jobs $(JOBS) $(ARGS)

kill-pipelines: $(VENV)/.installed
	$(BIN)/python -m tests.pipelines $(if $(filter file,$(origin SECONDS)),,--seconds $(SECONDS)) $(SEED:%=--seed %) $(ARGS)

soak: crash-programs $(VENV)/.installed
	build/release/tests/crash/ssm_soak --markdown --seconds $(SECONDS) --workers $(WORKERS) $(SEED:%=--seed %)
	$(BIN)/python -m tests.soak --markdown --seconds $(SECONDS) --workers $(WORKERS) $(SEED:%=--seed %)

.PHONY: crash-programs
crash-programs: | $(VENV)/.group-build
	cmake --preset release >/dev/null
	cmake --build --preset release --target ssm_killer ssm_soak -j $(JOBS) >/dev/null

wheels: $(VENV)/.group-wheels
	$(BIN)/python .ci/wheels $(ARGS)

install: $(VENV)/.installed

clean:
	rm -rf build dist $(VENV)/.installed .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find ssm allocators tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"ssm needs Python 3.11 or newer, this is {sys.version.split()[0]}: make PYTHON=/path/to/a/newer/python3")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.group-%: pyproject.toml | $(VENV)/.python
	$(PIP) install --quiet --group $*
	@touch $@

# What bridges, ssm web, some examples and the tests in a browser need, and nothing else; where an interpreter has no
# wheel of it, they are skipped.
$(OPTIONAL): $(VENV)/.group-%: pyproject.toml | $(VENV)/.python
	$(PIP) install --quiet --only-binary :all: --group $* || echo 'Some tests of $* will be skipped.'
	@touch $@

$(VENV)/.installed: $(NATIVE) | $(VENV)/.group-build
	$(PIP) install --quiet --no-build-isolation --editable '.[demo]'
	@touch $@

# An environment with a group of packages that nothing else here needs; ours is built there as for a user.
build/%/.installed: $(NATIVE) | $(VENV)/.python
	$(PYTHON) -m venv build/$*
	build/$*/bin/python -m pip --disable-pip-version-check install --quiet --upgrade 'pip>=25.1'
	build/$*/bin/python -m pip --disable-pip-version-check install --quiet --group $*
	build/$*/bin/python -m pip --disable-pip-version-check install --quiet --no-build-isolation \
	  --config-settings build-dir=build/$*/native --editable .
	@touch $@
