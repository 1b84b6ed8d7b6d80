PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# DVC runs the stages' commands with the first python of PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# More arguments for pip, such as those of a package index: make repro PIP_ARGS="--index-url ... --extra-index-url ..."
PIP_ARGS ?=
# pip compiles every module that it installs, which takes as long as the rest; Python compiles those that are used when
# they are first imported, and keeps them unless this forbids it.
unexport PYTHONDONTWRITEBYTECODE
PIP := python -m pip install --quiet --no-compile --disable-pip-version-check $(PIP_ARGS)

.DEFAULT_GOAL := help
.PHONY: help repro data plan watch report sweep study experiments prune chat compare generate export push serve lm-eval test test-slow test-faults lint format bench clean

# Where trainings are reported to: make repro REPORT_TO=tensorboard,wandb (docs/watching.md). Stages read it from the
# environment, to which make adds what stands on its command line.

# What `make sweep` runs: ppo.kl_coef and dpo.beta, with every seed, JOBS at a time.
PPO_KL_COEFS := 0.05,0.2,0.8
DPO_BETAS := 0.05,0.2,0.8
SEEDS := 0,1
JOBS := 1
# The models that `make chat`, `make generate`, `make export`, `make push`, `make serve` and `make compare` use.
MODEL := models/dpo
A := models/ppo
B := models/dpo
# `make prune` frees the models of these experiments (none named: of all) but for those of KEEP, and only where APPLY is 1
# (or yes, or true).
APPLY :=
EXPERIMENTS :=
KEEP :=
PRUNE = $(foreach name,$(EXPERIMENTS),--experiments "$(name)") $(foreach name,$(KEEP),--keep "$(name)") \
  --apply="$(APPLY)"
# What `make generate` answers, and writes (.jsonl or .csv). SCORES: reward models and functions, a,b. OPTIONS: more of the
# command's options, such as those of decoding; python -m rlhf_lib.answering --help lists them.
PROMPTS := data/splits/test.jsonl
OUT := answers.jsonl
SCORES :=
OPTIONS :=
# The tasks of `make lm-eval`: names, tags, groups, patterns or YAML files, with commas; demo is a tag of the examples.
TASKS := demo
# More of its options, such as LM_EVAL_ARGS="--limit 100 --num_fewshot 5"; ONLINE=1 lets tasks download their data.
LM_EVAL_ARGS :=
# Of `make export`: what the weights are written in (bf16, fp32, fp16), the licence in the card (an identifier of the
# hub), and a checkout of llama.cpp, whose converter writes the GGUF.
DTYPE := bf16
LICENSE := unknown
LLAMA_CPP ?=
# Where `make push` puts dist/<name of MODEL>: owner/name, privately unless PUBLIC=1; the token is in HF_TOKEN.
REPO :=
PUBLIC :=
# Of `make serve`, on 127.0.0.1.
PORT := 8000

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

repro: $(VENV)/run.stamp ## run the whole pipeline, or what changed of it, and print the comparison
	@python -P rlhf_lib/repair.py
	@python -m rlhf_lib.check
	dvc repro
	@python -m stages.report --show

data: $(VENV)/run.stamp ## read, filter and split the data, and show what there is and what was dropped
	@python -P rlhf_lib/repair.py
	@python -m rlhf_lib.check
	dvc repro --quiet prepare
	@python -m rlhf_lib.data.show

plan: $(VENV)/run.stamp ## what each stage will need: parameters, memory, FLOPs and time on this machine
	@python -m rlhf_lib.plan

watch: $(VENV)/run.stamp ## the stage that runs, from a second terminal: progress, curves, speed, memory, time left
	@python -m rlhf_lib.watch

report: $(VENV)/run.stamp ## write the page of the last run and open it in a browser
	@python -m stages.report --open

sweep: $(VENV)/run.stamp ## run KL coefficients and betas with several seeds, and draw the reward-KL frontier
	@python -m rlhf_lib.experiments.sweep --ppo="$(PPO_KL_COEFS)" --dpo="$(DPO_BETAS)" --seeds="$(SEEDS)"
	dvc exp run --run-all -j $(JOBS)
	@python -m rlhf_lib.experiments.frontier

study: $(VENV)/run.stamp ## compare the methods of study.yaml: tuned alike, with seeds, and who is better than whom
	@python -m rlhf_lib.study --jobs $(JOBS)

experiments: $(VENV)/run.stamp ## list the experiments with their coefficients, seeds and headline numbers
	@python -m rlhf_lib.experiments

prune: $(VENV)/run.stamp ## what takes how much disk; APPLY=1 frees the models of experiments and keeps their numbers
	@python -m rlhf_lib.prune $(PRUNE)

chat: $(VENV)/run.stamp ## talk to a model: make chat MODEL=models/ppo
	@python -m rlhf_lib.talk chat "$(MODEL)"

export: $(VENV)/run.stamp ## write a model with its card into dist/, to take away: make export MODEL=models/ppo DTYPE=fp32
	@python -m rlhf_lib.export write "$(MODEL)" --dtype "$(DTYPE)" --license "$(LICENSE)" --llama-cpp "$(LLAMA_CPP)"

push: $(VENV)/run.stamp ## upload such an export to the hub: HF_TOKEN=... make push MODEL=models/ppo REPO=owner/name
	@python -m rlhf_lib.export push "dist/$(notdir $(patsubst %/,%,$(MODEL)))" "$(REPO)" $(if $(PUBLIC),--public)

serve: $(VENV)/serve.stamp ## answer requests in OpenAI's form on 127.0.0.1: make serve MODEL=models/ppo PORT=8001
	@python -m rlhf_lib.export serve "$(MODEL)" --port "$(PORT)"

compare: $(VENV)/run.stamp ## two models' answers side by side: make compare A=models/sft B=models/ppo PROMPT='...'
	@python -m rlhf_lib.talk compare "$(A)" "$(B)" $(if $(filter command,$(origin PROMPT)),"$$PROMPT")

generate: $(VENV)/run.stamp ## a model's answers to a file, with scores: make generate MODEL=models/ppo PROMPTS=mine.csv OUT=a.csv
	@python -m rlhf_lib.answering "$(MODEL)" "$(PROMPTS)" --out "$(OUT)" --scores "$(SCORES)" $(OPTIONS)

lm-eval: $(VENV)/lm-eval.stamp ## did alignment cost capability? lm-evaluation-harness: make lm-eval MODEL=models/sft,models/dpo TASKS=demo
	@python -m rlhf_lib.capability $(if $(filter command,$(origin MODEL)),"$(MODEL)") --tasks="$(TASKS)" \
		$(if $(ONLINE),--online) $(LM_EVAL_ARGS)

test: $(VENV)/dev.stamp ## run the tests, less the slow ones
	python -m pytest -n auto --dist loadfile

test-slow: $(VENV)/dev.stamp ## run the slow tests
	python -m pytest -m "slow and not faults" -n auto --dist loadfile

test-faults: $(VENV)/dev.stamp ## kill it, fill its disk, feed it what is broken or hostile, and count what held; an hour
	python -m pytest tests/faults -m faults -n auto --dist loadfile

lint: $(VENV)/dev.stamp ## check format, style and types
	ruff format --check .
	ruff check .
	mypy

format: $(VENV)/dev.stamp ## put the code into the house format
	ruff format .
	ruff check --fix .
	python -m rlhf_lib.json_schema

bench: $(VENV)/run.stamp ## measure the graph, data stages, reward models, and our trainers against TRL's; takes hours
	python -m benchmarks.graph
	python -m benchmarks.data
	python -m benchmarks.reward_kinds
	python -m benchmarks.trainers
	python -m benchmarks.launches
	python -m benchmarks.plan
	python -m benchmarks.ppo
	python -m benchmarks.grpo

clean: ## delete the virtual environment and everything that stages made, but not DVC's cache, nor the trackers' logs/
	rm -rf $(VENV) report checkpoints dvc_plots dist
	rm -rf models/base models/sft models/reward models/judge models/dpo models/ppo models/rft models/rft_random models/kto
	rm -rf data/inputs data/raw data/rejected.jsonl data/splits data/negatives data/reference data/samples
	rm -rf data/scores data/llm_judge.jsonl data/candidates data/rft data/rft_random data/lm_eval
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .bench build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt | $(VENV)/pyvenv.cfg
	@echo "Installing requirements.txt into $(VENV), once; this takes minutes"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/serve.stamp: requirements-serve.txt $(VENV)/run.stamp
	@echo "Installing requirements-serve.txt into $(VENV), once"
	@$(PIP) -r requirements-serve.txt
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements-serve.txt $(VENV)/run.stamp
	@echo "Installing requirements-dev.txt into $(VENV), once"
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(VENV)/lm-eval.stamp: requirements-lm-eval.txt $(VENV)/run.stamp
	@echo "Installing requirements-lm-eval.txt into $(VENV), once"
	@$(PIP) -r requirements-lm-eval.txt
	@touch $@
