# A thin front over CMake: every target sets up what it needs, on a fresh Debian 12 too.
.DEFAULT_GOAL := build
.PHONY: deps build model run test bench fuzz format clean help

export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc)
export CMAKE_CXX_COMPILER_LAUNCHER ?= $(shell command -v ccache)
MODEL := models/smollm2-135m-instruct.gguf
FUZZ_SECONDS ?= 60
SHORT_FUZZ_SECONDS := 5
SOURCES = $(shell find main.cpp commands engine graph backends gguf-like-format tests tools -name '*.cpp' -o -name '*.h' -o -name '*.cu')
CLANG_FUZZER = $(wildcard $(shell clang++ -print-resource-dir 2>/dev/null)/lib/linux/libclang_rt.fuzzer-*.a)

deps: ## install what is missing (DEPS=--checks: also Clang, clang-format and ccache)
	@tools/install_dependencies.sh $(DEPS)

build/build.ninja: | deps
	cmake --preset release

build: deps build/build.ninja ## build build/tessera (the default)
	cmake --build build --target tessera

model: deps ## fetch a real model, SmolLM2-135M-Instruct, once
	@tools/fetch_model.py $(MODEL)

run: build ## build, then let that model answer a question, or the embedded model where there is no network
	@run() { echo "$$*"; "$$@"; }; \
	if tools/fetch_model.py $(MODEL) --otherwise "the embedded model answers"; \
	then run build/tessera -m $(MODEL) -f prompts/first-question.txt --temp 0; \
	else run build/tessera -f prompts/first-answer.txt; fi

test: deps build/build.ninja ## build everything and run all tests, fuzz targets for a few seconds each
	cmake --build build
ifneq ($(CLANG_FUZZER),)
	cmake --preset fuzz
	cmake --build build-fuzz --target fuzzers
	tests/run_all.py --parts unit,cli,fuzz --fuzz-seconds $(SHORT_FUZZ_SECONDS)
else
	tests/run_all.py --parts unit,cli --skip "fuzz targets, they need Clang (make deps DEPS=--checks)"
endif

bench: build ## measure this machine and the embedded model on it
	build/tessera --bench

fuzz: ## fuzz every target for FUZZ_SECONDS (60) with Clang
	@tools/install_dependencies.sh --checks
	cmake --preset fuzz
	cmake --build build-fuzz --target fuzzers
	tests/run_all.py --parts fuzz --fuzz-seconds $(FUZZ_SECONDS)

format: ## clang-format all sources
	clang-format -i $(SOURCES)

clean: ## remove all build folders
	rm -rf build build-*

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10
