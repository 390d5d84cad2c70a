# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOTS := reference proofs engine_adapter
# All extras but the serving engines, which are gigabytes and contradict each other (CONTRIBUTING.md, "Engines").
EXTRAS := torch,triton,proofs,plot,dev
MUTATION := build/mutation
# Where public traces are (CONTRIBUTING.md, "Traces"); what needs one is skipped where it is absent.
TRACES := $(or $(DLPM_TRACES),../shared/traces)
# The stamp is named after what it was installed from, so that an unchanged checkout reinstalls nothing, whatever git
# did to the files' times.
KEY := $(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
STAMP := $(VENV)/.installed-$(KEY)

.DEFAULT_GOAL := help
.PHONY: help setup verify test lint types imports bench gpu examples results-d2lpm results-quantum results-swap mutation engine-ray engine-sglang clean

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 24

setup: $(STAMP) ## Make .venv with the pinned dependencies and an editable install (nothing to do if up to date)

$(STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq -c constraints.txt pip hatchling editables
	$(BIN)/python -m pip install -qq -c constraints.txt --no-build-isolation -e '.[$(EXTRAS)]'
	$(BIN)/python -m pip check
	rm -f $(VENV)/.installed-*
	touch $@

verify: setup ## The main job: what is proved, and the policies side by side on the bundled workload
	$(BIN)/dlpm verify
	$(BIN)/dlpm run examples/workloads/shared-prefixes.jsonl --policy fcfs --policy lpm --policy vtc --policy dlpm --quantum 2000 --gpu a10g

test: setup ## All tests, on two processes
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: setup ## Style and formatting
	$(BIN)/ruff check $(ROOTS) tests examples
	$(BIN)/ruff format --check $(ROOTS) tests examples

types: setup ## mypy --strict over the three roots and the tests
	$(BIN)/mypy --strict $(ROOTS) tests examples

imports: setup ## The import contract between the three roots
	$(BIN)/lint-imports

bench: setup ## How fast the reference, the checker and the tensor path are
	$(BIN)/dlpm bench

gpu: setup ## On a machine with a CUDA device: the suite, campaigns and figures of docs/benchmarks.md, "On a GPU"
	$(BIN)/dlpm diff --engine tensor --device cuda --cases 20000 --jobs 2
	$(BIN)/dlpm diff --engine tensor-batched --device cuda --cases 20000 --jobs 2
	$(BIN)/python -m pytest -q --impl=tensor-cuda tests/engine_adapter/tensor
	$(BIN)/python -m pytest -q --impl=tensor-batched-cuda tests/engine_adapter/tensor
	$(BIN)/dlpm bench --suite batched --device cuda --instances 1,64,4096
	$(BIN)/dlpm bench --suite decision --engine tensor-batched --device cuda --sizes 128,1024,8192,65536,524288
	$(BIN)/dlpm bench --suite decision --engine tensor-kernel --device cuda --sizes 128,1024,8192

examples: setup ## Write the bundled example workloads and logs anew
	$(BIN)/python examples/make_workloads.py
	mkdir -p examples/logs
	$(BIN)/dlpm run examples/workloads/optimistic-breaks-printed-floor.jsonl --policy dlpm --quantum 8 --weights 1,2 \
	  --kv-tokens 64 --memory optimistic --full-log --events examples/logs/optimistic-breaks-printed-floor.jsonl

results-d2lpm: setup ## Run the paper's cluster experiments again, for docs/results-d2lpm.md (20 minutes of CPU time)
	mkdir -p docs/results docs/figures
	$(BIN)/python -m dlpm_engine.experiments docs/results/d2lpm.jsonl 2
	$(BIN)/python -m dlpm_engine.experiments.seeds docs/results/d2lpm-seeds.jsonl 2
	$(BIN)/python -m dlpm_engine.experiments.report docs/results-d2lpm.md docs/results/d2lpm.jsonl docs/results/d2lpm-seeds.jsonl

results-quantum: setup ## Run the experiment on who picks the quantum again, for docs/results-quantum.md (10 minutes of CPU time)
	mkdir -p docs/results docs/figures
	$(BIN)/python -m dlpm_engine.experiments.quantum docs/results/quantum.jsonl 2 $(TRACES)/mooncake/conversation_trace.jsonl.gz
	$(BIN)/python -m dlpm_engine.experiments.quantum_report docs/results-quantum.md docs/results/quantum.jsonl

results-swap: setup ## Run the ways to swap side by side again, for docs/results-swap.md (1 minute of CPU time)
	for seed in 0 1 2; do \
	  $(BIN)/python examples/swap_modes.py --rate 0.2 --chats 60 --seed $$seed && \
	  $(BIN)/python examples/swap_modes.py --rate 0.04 --kv-tokens 8000 --seed $$seed || exit 1; \
	done

mutation: setup ## Mutation score of what schedules and what checks (long; MUTANTS='dlpm.worker.*' for a part)
	rm -rf $(MUTATION)
	mkdir -p $(MUTATION)/src
	cp -R reference/dlpm proofs/dlpm_proofs engine_adapter/dlpm_engine $(MUTATION)/src
	cp -R tests docs examples reference pyproject.toml $(MUTATION)
	cd $(MUTATION) && HYPOTHESIS_PROFILE=mutation nice $(CURDIR)/$(BIN)/mutmut run --max-children 2 $(MUTANTS)
	cd $(MUTATION) && $(CURDIR)/$(BIN)/mutmut results && $(CURDIR)/$(BIN)/mutmut export-cicd-stats
	cat $(MUTATION)/mutants/mutmut-cicd-stats.json

engine-ray: .venv-ray/.installed-$(KEY) ## Make .venv-ray, for .venv-ray/bin/dlpm diff --ray

.venv-ray/.installed-$(KEY):
	test -x .venv-ray/bin/python || $(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install -qq -c constraints.txt pip hatchling editables
	.venv-ray/bin/python -m pip install -qq -c constraints.txt --no-build-isolation -e '.[torch,ray]'
	.venv-ray/bin/python -m pip check
	rm -f .venv-ray/.installed-*
	touch $@

SGLANG_KEY := $(shell cksum < constraints-sglang.txt | cut -d ' ' -f 1)
engine-sglang: .venv-sglang/.installed-$(SGLANG_KEY) ## Make .venv-sglang, for dlpm bench --sglang .venv-sglang/bin/python

.venv-sglang/.installed-$(SGLANG_KEY):
	test -x .venv-sglang/bin/python || $(PYTHON) -m venv .venv-sglang
	.venv-sglang/bin/python -m pip install -qq -c constraints.txt torch
	.venv-sglang/bin/python -m pip install -qq --no-deps -r constraints-sglang.txt
	rm -f .venv-sglang/.installed-*
	touch $@

clean: ## Remove the environment, caches and build results
	rm -rf $(VENV) .venv-ray .venv-sglang build dist mutants .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find $(ROOTS) tests -name __pycache__ -type d -prune -exec rm -rf {} +
