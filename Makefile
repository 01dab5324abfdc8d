# One command each: `make demo` (the main job), `make test`; both set up .venv by themselves.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml CMakeLists.txt Makefile $(shell find native -type f -not -path 'native/tests/*' 2>/dev/null)

ifeq ($(origin CAROUSEL_DATA), undefined)
ifneq ($(wildcard ../shared/data),)
export CAROUSEL_DATA := $(abspath ../shared/data)
endif
endif

.PHONY: setup demo test test-native test-edge test-arm lint bench docs clean

setup: $(VENV)/.installed

$(VENV)/.installed: $(SOURCES)
	@command -v $(PYTHON) >/dev/null || { echo "carousel: no $(PYTHON) found; install Python 3.11 or newer, or say PYTHON=..." >&2; exit 1; }
	@command -v "$${CXX:-c++}" >/dev/null || { echo "carousel: no C++ compiler found; install one (for example 'apt-get install g++') or name it in CXX." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train,dev]'
	@touch $@

demo: setup
	$(BIN)/carousel demo --out demo

test: setup lint test-native test-edge
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $$(find native -name '*.cpp' -o -name '*.h')
	$(BIN)/mypy
	$(BIN)/lint-imports

# The C++ core's own tests, under AddressSanitizer and UndefinedBehaviorSanitizer.
test-native: setup
	PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DCAROUSEL_PYTHON=OFF -DCAROUSEL_TESTS=ON -DCAROUSEL_SANITIZE=ON
	PATH="$(abspath $(BIN)):$$PATH" cmake --build build/sanitize
	PATH="$(abspath $(BIN)):$$PATH" ctest --test-dir build/sanitize --output-on-failure

# Exported C on an emulated Cortex-M4 and M0+, bit for bit as here. Says so where the tools are missing, which is an
# error with CAROUSEL_EDGE=required.
test-edge: setup
	cd tests && $(abspath $(BIN))/python -m edge

# The C++ core's tests on emulated 64-bit Arm; needs g++-aarch64-linux-gnu and qemu-user-static. Optimised as -O2: GCC 12
# for Arm fails inside itself on the tests at -O3.
test-arm: setup
	@for tool in aarch64-linux-gnu-g++ qemu-aarch64-static; do command -v $$tool >/dev/null || \
	  { echo "carousel: no $$tool found; install g++-aarch64-linux-gnu and qemu-user-static." >&2; exit 1; }; done
	PATH="$(abspath $(BIN)):$$PATH" cmake -S . -B build/arm -G Ninja -DCMAKE_TOOLCHAIN_FILE=native/aarch64.cmake \
	  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCAROUSEL_PYTHON=OFF -DCAROUSEL_TESTS=ON
	PATH="$(abspath $(BIN)):$$PATH" cmake --build build/arm
	PATH="$(abspath $(BIN)):$$PATH" ctest --test-dir build/arm --output-on-failure

# Slow accuracy and speed runs; results go to benchmarks/results/.
bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train,bench,dev]'
	$(BIN)/carousel bench layer
	$(BIN)/carousel bench ragged
	$(BIN)/carousel bench variants
	$(BIN)/carousel bench fit --out benchmarks/results/fit.md
	$(BIN)/carousel bench accuracy --out benchmarks/results

clean:
	rm -rf build $(VENV) demo
