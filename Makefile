# Every target makes the environment it needs: .venv, the packages of its group in pyproject.toml, the extension.
.DEFAULT_GOAL := help
.PHONY: demo dev test test-full systems lint bench docs wheel help python rust
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
# the first Python that is new enough; `make PYTHON=...` names another
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
UV := $(shell command -v uv 2>/dev/null)
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(PY),$(PY) -m pip install --quiet --disable-pip-version-check)
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)
# tests run on a build with the assertions of a debug build; everything else on a release build
BUILD = PYO3_PYTHON= VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --quiet $(if $(UV),--uv) --profile

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: $(VENV)/.demo | rust ## the main job on a real model, from nothing: two tables
	@$(BUILD) release
	@$(PY) examples/demo.py

test: $(VENV)/.test | rust ## what CI runs: lint, Rust, Python, GPU kernels in the interpreter (some 40 min on two cores)
	@$(MAKE) --no-print-directory lint cargo-test PROFILE=ci
	@$(BUILD) checked
	@$(MAKE) --no-print-directory pytest PROFILE=ci SELECT="not full"

dev: $(VENV)/.test | rust ## an extension for the inner loop: what changed is built anew, for AVX2 alone
	@$(BUILD) dev --features one-level

test-full: $(VENV)/.test | rust ## test, and what takes hours: all 2^32 inputs, thousands of examples, hundreds of kills
	@$(MAKE) --no-print-directory lint cargo-test PROFILE=full
	@$(BUILD) checked
	@$(MAKE) --no-print-directory pytest PROFILE=full SELECT="full or not full"

systems: $(VENV)/.test | rust ## published systems in small, each held to its claims; writes the table of docs/systems.md
	@$(BUILD) release
	@$(PY) -m examples.systems

.PHONY: cargo-test pytest
cargo-test:
	$(if $(NEXTEST),cargo nextest run --cargo-profile checked --workspace,cargo test --profile checked --workspace) \
		$(if $(filter full,$(PROFILE)),$(if $(NEXTEST),--run-ignored all,-- --include-ignored))

# three processes: side by side, alone (forks, signals, memory, timing), and with Triton's interpreter
pytest:
	TERSOR_NUM_THREADS=2 OMP_NUM_THREADS=1 $(PY) -m pytest --hypothesis-profile=$(PROFILE) -n 2 --dist worksteal \
		-m "not serial and not triton and ($(SELECT))"
	$(PY) -m pytest --hypothesis-profile=$(PROFILE) -m "serial and not triton and ($(SELECT))"
	TRITON_INTERPRET=1 OMP_NUM_THREADS=1 $(PY) -m pytest --hypothesis-profile=$(PROFILE) -n 2 --dist worksteal \
		-m "triton and ($(SELECT))"

lint: $(VENV)/.test | rust ## formatting, clippy, ruff, mypy
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets --profile checked -- -D warnings
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

bench: $(VENV)/.bench | rust ## ratio tables against the peers, then pytest-benchmark over the registry
	@$(BUILD) release
	@$(BIN)/tersor bench
	$(PY) -m pytest benches --benchmark-only --benchmark-columns=min,median,iqr --benchmark-sort=name -q

docs: $(VENV)/.docs | rust ## docs/_build/html, warnings are errors
	@$(BUILD) release
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "open docs/_build/html/index.html"

wheel: $(VENV)/.build | rust ## one wheel for this platform and the source archive, in dist/
	$(BIN)/maturin build --profile dist --out dist
	$(BIN)/maturin sdist --out dist

# --- the environment ---

python:
	@$(if $(PYTHON),$(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "tersor needs Python 3.11 or newer and found $(or $(PYTHON),none (looked for python3, python3.11 to 3.14))." >&2; \
		echo "Get it from your system (Debian: apt-get install python3 python3-venv), from python.org or with 'uv python install 3.12';" >&2; \
		echo "if it is somewhere else: make PYTHON=/path/to/python3" >&2; exit 1; }

rust:
	@need=1.89; have=$$(rustc --version 2>/dev/null | cut -d' ' -f2 || true); \
	if ! command -v cargo >/dev/null || [ "$$(printf '%s\n' "$$need" "$$have" | sort -V | head -n 1)" != "$$need" ]; then \
		echo "tersor needs a Rust toolchain, $$need or newer, and found $${have:-none}." >&2; \
		echo "Get it with rustup, as https://rustup.rs says, or from your system's packages if they are new enough." >&2; exit 1; fi

$(PY): | python rust
	@$(if $(UV),$(UV) venv --quiet --seed --python $(PYTHON) $(VENV),$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "this Python cannot make a virtual environment (Debian: apt-get install python3-venv)" >&2; exit 1; })
	@$(if $(UV),,$(PY) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1')

# one mark per dependency group of pyproject.toml
$(VENV)/.%: pyproject.toml | $(PY)
	@echo "installing the packages of group '$*'" $(if $(filter demo test bench docs,$*),"(torch among them: this takes a while)")
	@$(INSTALL) --group $*
	@touch $@
