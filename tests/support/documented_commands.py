"""The commands in README and docs: which are run, on the preset smoke in a copy of the project, and why not others."""

from __future__ import annotations

# before any stage has run
ON_A_FRESH_COPY = {
    "make data",
    "python -m examples.arithmetic",
    "python -m rlhf_lib.data.show --examples --split preference_train",
    "python -m rlhf_lib.preset",
    "python -m rlhf_lib.preset arithmetic",
    "python -m rlhf_lib.preset demo",
    "python -m rlhf_lib.preset gpt2",
    "python -m rlhf_lib.preset gpt2 sft.seed=1",
    "python -m rlhf_lib.preset gpt2 smoke",
    "python -m rlhf_lib.preset gpt2 'launch=accelerate launch --config_file launch/gpus.yaml' "
    "ppo.per_device_train_batch_size=4",
    "python -m rlhf_lib.preset local 'load.sources=[{reader: file, path: answers.csv, columns: "
    "{prompt: Question, response: Answer, score: Score}}]'",
    "python -m rlhf_lib.preset pythia-160m",
    "python -m rlhf_lib.preset pythia-160m --flags",
    "python -m rlhf_lib.preset smoke",
}
# after the whole graph has run and was committed
AFTER_A_RUN = {
    "cp -r models/judge rewards/quality",
    "dvc exp apply gentle",
    "dvc exp run --temp -n cool -S ppo.temperature=0.2 -S ppo.top_k=50 -S ppo.min_new_tokens=1 "
    "-S 'evaluate.temperatures=[0.2,0.0]' -S evaluate.top_k=50 -S evaluate.min_new_tokens=1",
    "dvc exp run --temp -n encoder -S reward.model_name_or_path=models/encoder",
    "dvc exp run --temp -n quality -S 'ppo.reward_funcs=[rewards/quality]'",
    "dvc exp run --temp -n bounded -S reward.loss_type=mse -S reward.bounded=true",
    "dvc exp run --temp -n from-base -S reward.model_name_or_path=models/base",
    "dvc exp run --temp -n gentle -S ppo.kl_coef=0.8",
    "dvc exp run --temp -n gold -S 'ppo.reward_funcs=[rewards.examples:demo_gold]'",
    "dvc exp run --temp -n grpo -S ppo.advantage_estimator=grpo -S ppo.critic=none -S ppo.num_generations=4 "
    "-S ppo.whiten_advantages=false -S ppo.scale_rewards=group -S ppo.loss_aggregation=sequence -S ppo.kl_in=loss "
    "-S ppo.kl_estimator=k3 -S ppo.use_bias_correction_kl=true",
    "dvc exp run --temp -n kto -S methods.kto=true -S policy=kto",
    "dvc exp run --temp -n lora -S ppo.lora_r=8 -S ppo.learning_rate=3e-3",
    "dvc exp run --temp -n negatives -S negatives.model_name_or_path=models/sft",
    "dvc exp run --temp -n polite -S 'ppo.reward_funcs=[models/reward,rewards.mine:politeness]' "
    "-S 'ppo.reward_weights=[1.0,0.5]'",
    "dvc exp run --temp -n ranking -S reward.loss_type=ranking",
    "dvc exp run --temp -n rft -S methods.rft=true -S methods.rft_random=true",
    "dvc exp run --temp -n separate -S ppo.critic=separate",
    "dvc exp run --temp -n smaller -S '+prepare.mixture.demo.max_rows=2000'",
    "dvc exp run --temp -n with-sft -S 'dpo.loss_type=[sigmoid,sft]' -S 'dpo.loss_weights=[1.0,0.5]'",
    "dvc exp run --temp -n watched -S 'ppo.reward_funcs=[models/reward,rewards.examples:demo_gold]' "
    "-S 'ppo.reward_weights=[1,0]'",
    "dvc metrics diff HEAD gentle --targets metrics/policy.json",
    "dvc repro negatives",
    'git add rewards && git commit -m "a reward for politeness"',
    "git checkout metrics dvc.lock",
    "make chat MODEL=models/dpo",
    "make compare A=models/sft B=models/dpo PROMPT='Say this politely: help me with this box.'",
    "make compare A=models/sft B=models/ppo PROMPT='Tell me the capital of France. End with a kind wish.'",
    "make compare A=models/sft B=models/ppo PROMPT='What is the plural of mouse? Answer in a full sentence.'",
    "make experiments",
    "make prune",
    "make prune APPLY=1",
    'make generate MODEL=models/ppo OUT=answers-ppo.csv OPTIONS="--num_beams 4 --no_repeat_ngram_size 3"',
    'make generate PROMPTS=answers.csv OUT=answers-2.csv OPTIONS="--prompt_column Question --reference_column Answer"',
    "make generate SCORES=models/reward,models/judge",
    "make export MODEL=models/dpo",
    "make export MODEL=models/dpo DTYPE=fp32",
    "make report",
    "dvc plots diff HEAD --targets metrics/sft/train.tsv",
    "dvc plots show",
    "python -m examples.encoder_reward",
    "python -m rlhf_lib.answering --help",
    "python -m rlhf_lib.answering models/sft data/splits/test.jsonl --top_k 50 --num_return_sequences 2",
    "python -m rlhf_lib.watch --once",
}
# `git add -A && git commit` is for both, and so are lines that only set a shell variable
EITHER = {'git add -A && git commit -m "first run"'}

NETWORK, GPU, MINUTES = "needs the network", "needs a GPU", "trains for minutes"
MACHINES, PAGER = "needs a remote that several machines share", "needs a screen"
BRANCHES = "needs two branches that were run; tests/graph merges them"
STUDY = "trains for an hour; tests/graph runs a smaller study"
SWEEP = "trains for minutes; tests/graph runs a smaller sweep, and the commands on its experiments"
MONITOR = (
    "monitor=\"-S ppo.reward_funcs=[models/reward,'rewards.examples:demo_gold'] "
    '-S ppo.reward_weights=[1,0] -S ppo.eval_rollouts=4"'
)
HARNESS = "installs lm-evaluation-harness; tests/capability runs it where it is there"
NODES = "accelerate launch --config_file launch/nodes.yaml"
SERVER, OTHERS = "a server, which tests/export runs", "needs vLLM, Ollama or llama.cpp"
TAKEN_AWAY = {
    "make serve MODEL=models/dpo": SERVER,
    "curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{\"model\": "
    '"models/dpo", "messages": [{"role": "user", "content": "Tell me the capital of France."}], "max_tokens": 48, '
    '"temperature": 0}\'': SERVER,
    "make push MODEL=models/dpo REPO=owner/name": "needs the network; tests/export pushes to a stand-in",
    "vllm serve dist/dpo --host 127.0.0.1 --port 8000 --served-model-name dpo": OTHERS,
    "make export MODEL=models/dpo DTYPE=fp16 LLAMA_CPP=../llama.cpp": OTHERS,
    "ollama create dpo -f dist/dpo/Modelfile": OTHERS,
    "ollama run dpo": OTHERS,
    "llama-server -m dist/dpo/dpo-f16.gguf --jinja": OTHERS,
}
NOT_RUN = {
    "make repro": "installs, and trains for minutes",
    'make repro PIP_ARGS="--index-url https://download.pytorch.org/whl/cpu '
    '--extra-index-url https://pypi.org/simple"': NETWORK,
    "make repro REPORT_TO=tensorboard": "installs, and trains for minutes",
    "pip install tensorboard": NETWORK,
    "REPORT_TO=tensorboard dvc exp run --temp -n gentler -S ppo.kl_coef=0.8": "tests/training reports",
    "tensorboard --logdir logs": PAGER,
    "make test": "this is it",
    "make watch": "runs until Ctrl-C",
    "make plan": "reads what the line before it downloads",
    "hf download openai-community/gpt2 config.json --revision 607a30d783dfa663caf39e06633721c8d4cfcd7e": NETWORK,
    "less data/rejected.jsonl": PAGER,
    "dvc repro": MINUTES,
    "dvc exp run --run-all -j 1": MINUTES,
    "dvc exp run --temp -n adapters -S sft.lora_r=8 -S reward.lora_r=8 -S judge.lora_r=8 -S dpo.lora_r=8 "
    "-S ppo.lora_r=8": MINUTES,
    "dvc exp run --temp -n gamed -S ppo.kl_coef=0 -S ppo.learning_rate=1.5e-3 -S ppo.total_rollouts=60 "
    "-S ppo.eval_rollouts=5": MINUTES,
    "dvc exp run --temp -n hot -S dpo.learning_rate=1e-3 -S dpo.beta=0.05": MINUTES,
    "dvc exp run --temp -n hot-with-sft -S dpo.learning_rate=1e-3 -S dpo.beta=0.05 "
    "-S 'dpo.loss_type=[sigmoid,sft]'": MINUTES,
    "dvc exp run --temp -n seed-1 -S{load,prepare,base,sft,negatives,reward,dpo,ppo,evaluate}.seed=1 "
    "-S judge.seed=2": MINUTES,
    "dvc exp run --temp -n two -S \"launch='accelerate launch --config_file launch/cpu-2.yaml'\" "
    "-S ppo.per_device_train_batch_size=16 ppo": MINUTES,
    "dvc exp run --temp -n rloo -S ppo.advantage_estimator=rloo -S ppo.critic=none -S ppo.num_generations=4 "
    "-S ppo.whiten_advantages=false": MINUTES,
    "dvc exp run --temp -n reinforce -S ppo.advantage_estimator=reinforce -S ppo.critic=none": MINUTES,
    MONITOR: MINUTES,
    "dvc exp run --queue -n healthy $monitor": MINUTES,
    "dvc exp run --queue -n separate-critic $monitor -S ppo.critic=separate": MINUTES,
    "dvc exp run --queue -n no-kl $monitor -S ppo.kl_coef=0 -S ppo.learning_rate=1.5e-3 "
    "-S ppo.total_rollouts=60": MINUTES,
    "dvc exp run --queue -n hot $monitor -S ppo.learning_rate=0.01": MINUTES,
    "dvc exp run --queue -n blind-critic $monitor -S ppo.vf_coef=0": MINUTES,
    "python docs/plot_ppo_runs.py healthy separate-critic no-kl hot blind-critic": "draws what the lines above train",
    "python -m examples.arithmetic --share": "reads what the line before it trains",
    "dvc exp run --temp -n exact-0": MINUTES,
    "dvc exp run --temp -n exact-1 -S{prepare,base,sft,ppo,evaluate}.seed=1": MINUTES,
    "dvc exp run --temp -n exact-2 -S{prepare,base,sft,ppo,evaluate}.seed=2": MINUTES,
    "python docs/plot_exact.py exact-0 exact-1 exact-2": "draws what the lines above train",
    "dvc exp run --queue -n lr -S policy=dpo -S 'dpo.learning_rate=5e-5,2e-4' select": SWEEP,
    "dvc exp run --queue -n pipeline-1 "
    "-S{load,prepare,base,sft,negatives,reward,dpo,ppo,evaluate}.seed=1 -S judge.seed=2": MINUTES,
    "make study": STUDY,
    "make study JOBS=2": STUDY,
    "make sweep": SWEEP,
    "make sweep PPO_KL_COEFS=0.1,0.4 DPO_BETAS=0.1,0.4 SEEDS=0,1,2": SWEEP,
    "make sweep PPO_KL_COEFS= DPO_BETAS=0.1,0.4": SWEEP,
    "make sweep JOBS=2": SWEEP,
    "make sweep DPO_BETAS=": SWEEP,
    "python -m rlhf_lib.experiments.sweep --ppo 0.05,0.2 --dpo 0.1 --seeds 0,1": SWEEP,
    "python -m rlhf_lib.experiments.sweep --rft 2,4,8 --rft_random 8 --seeds 0,1": SWEEP,
    "python -m rlhf_lib.experiments.frontier": SWEEP,
    "dvc exp show --csv > sweep.csv": SWEEP,
    "python -m rlhf_lib.experiments.frontier sweep.csv --out figures": SWEEP,
    "dvc exp show --csv | python -m rlhf_lib.experiments.frontier -": SWEEP,
    "dvc exp apply sweep-ppo-kl0.2-seed0": SWEEP,
    "dvc metrics diff sweep-ppo-kl0.2-seed0 sweep-dpo-beta0.2-seed0": SWEEP,
    "dvc exp remove -A": SWEEP,
    'make prune KEEP="sweep-ppo-*" APPLY=1': SWEEP,
    'make prune EXPERIMENTS="sweep-dpo-*" APPLY=1': SWEEP,
    "python -m rlhf_lib.prune --older-than 30 --apply": SWEEP,
    "git merge other": BRANCHES,
    'git add -A && git commit -m "merge other"': BRANCHES,
    'dvc remote add --default store "$SHARED/store"': MACHINES,
    "git push -u origin main && dvc push": MACHINES,
    'git clone "$SHARED/pipeline.git" && cd pipeline': MACHINES,
    "dvc pull && dvc exp pull origin": MACHINES,
    "dvc exp push origin": MACHINES,
    f"{NODES} --machine_rank 0 --main_process_ip HOST0 --main_process_port 29500 -m stages.sft": MACHINES,
    f"{NODES} --machine_rank 1 --main_process_ip HOST0 --main_process_port 29500 -m stages.sft": MACHINES,
    "dvc commit sft": MACHINES,
    "dvc exp run --temp -n hub -S \"ppo.reward_funcs=['owner/name@<commit>']\"": NETWORK,
    "dvc exp run --temp -n deberta -S \"reward.model_name_or_path='microsoft/deberta-v3-base@<commit>'\"": NETWORK,
    "transformers serve /models/my-judge --host 127.0.0.1 --port 8000": "needs a model; tests/llm_judge runs a server",
    "dvc exp run --temp -n judged -S llm_judge.base_url=http://127.0.0.1:8000/v1 "
    "-S llm_judge.model=/models/my-judge": "needs the server above; tests/llm_judge runs one",
    "make lm-eval": HARNESS,
    "make lm-eval MODEL=models/sft,models/dpo TASKS=demo_facts": HARNESS,
    'make lm-eval LM_EVAL_ARGS="--limit 20 --num_fewshot 1 --batch_size 8"': HARNESS,
    'make lm-eval TASKS=my_task LM_EVAL_ARGS="--include_path my_tasks"': HARNESS,
    "make lm-eval TASKS=arc_easy,hellaswag ONLINE=1": NETWORK,
    **TAKEN_AWAY,
    "python -m benchmarks.gpu train": GPU,
    "python -m benchmarks.gpu train --size tiny --peak-tflops 400": GPU,
    "python -m benchmarks.gpu ppo": GPU,
    "python -m benchmarks.gpu rollouts": GPU,
    "python -m benchmarks.reward_kinds": MINUTES,
}
