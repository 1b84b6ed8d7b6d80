"""The commands in README and docs run.

A line of a ```bash block is run here, or stands in NOT_RUN with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from copied_project import ENV, commit, copy_of_project, executed, run
from doc_pages import COMMAND_PAGES, TAKEN_AWAY, blocks, commands

# ---- what is run: in a copy of the project, on the preset smoke

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
    "python -m rlhf_lib.preset gpt2 'launch=accelerate launch --config_file launch/gpus.yaml'",
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
STUDY = "trains for an hour; tests/graph runs a smaller study"
SWEEP = "trains for minutes; tests/graph runs a smaller sweep, and the commands on its experiments"
MONITOR = (
    "monitor=\"-S ppo.reward_funcs=[models/reward,'rewards.examples:demo_gold'] "
    '-S ppo.reward_weights=[1,0] -S ppo.eval_rollouts=4"'
)
HARNESS = "installs lm-evaluation-harness; tests/capability runs it where it is there"
NODES = "accelerate launch --config_file launch/nodes.yaml"
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


COMMANDS = {
    f"{page}-{number}": commands(block)
    for page in COMMAND_PAGES
    for number, block in enumerate(blocks(page, "bash"), 1)
}


def to_run(where: set[str]) -> dict[str, list[str]]:
    """The blocks with lines that are run in such a copy, and these lines."""
    found = {name: [line for line in lines if line in where | EITHER] for name, lines in COMMANDS.items()}
    return {name: lines for name, lines in found.items() if set(lines) - EITHER}


def test_every_command_is_run_or_has_a_reason_why_not():
    lines = [line for block in COMMANDS.values() for line in block]
    known = [*ON_A_FRESH_COPY, *AFTER_A_RUN, *EITHER, *NOT_RUN]
    assert not set(lines) - set(known), "put it into ON_A_FRESH_COPY or AFTER_A_RUN, or with a reason into NOT_RUN"
    assert not set(known) - set(lines), "no page has it any more"
    assert len(known) == len(set(known)), "in two of them"


# ---- running them


def with_environment(folder: Path) -> Path:
    """The copy with a .venv that stands for the one of these tests, for which make has nothing to install."""
    own = Path(sys.executable).parent.parent
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "lib64"):
        if (own / name).exists():
            (folder / ".venv" / name).symlink_to(own / name)
    shutil.copy(own / "pyvenv.cfg", folder / ".venv")
    for name in ("run.stamp", "dev.stamp"):
        (folder / ".venv" / name).touch()
    return folder


def answers_csv() -> str:
    rows = [
        f"What is {n} plus {m}? Please tell me the sum.,The sum of these is {n + m + wrong}.,{9 - 5 * wrong}"
        for n in range(20)
        for m in range(20)
        for wrong in (0, 1)
    ]
    return "\n".join(["Question,Answer,Score", *rows]) + "\n"


def run_block(folder: Path, block: str, lines: list[str]) -> None:
    """Run lines of a page's block in a copy, with the files that the page says its reader has."""
    (folder / "notes.txt").write_text(block)  # something to commit
    (folder / "answers.csv").write_text(answers_csv())
    if block.startswith("docs/rewards.md"):
        (folder / "rewards/mine.py").write_text("\n".join(blocks(Path("docs/rewards.md"), "python")[0]) + "\n")
    env = {**ENV, "PATH": f"{folder}/.venv/bin{os.pathsep}{ENV['PATH']}", "BROWSER": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def restore(folder: Path, base: str) -> None:
    """Back to the copy's first commit; what stages wrote and git ignores stays."""
    run(folder, "git", "reset", "-q", "--hard", base)
    run(folder, "git", "clean", "-fdq")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_environment(copy_of_project(tmp_path_factory.mktemp("fresh")))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = with_environment(copy_of_project(tmp_path_factory.mktemp("finished")))
    assert "report" in executed(run(folder, "dvc", "repro"))
    commit(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("block", to_run(ON_A_FRESH_COPY))
def test_commands_run_before_any_stage_has(fresh: Path, block: str):
    base = run(fresh, "git", "rev-parse", "HEAD").strip()
    run_block(fresh, block, to_run(ON_A_FRESH_COPY)[block])
    restore(fresh, base)


def state_of(folder: Path) -> str:
    """What git says of the files, and the params."""
    return run(folder, "git", "status", "--porcelain") + (folder / "params.yaml").read_text(encoding="utf-8")


EXPERIMENTS = [line for lines in COMMANDS.values() for line in lines if line.startswith("dvc exp run")]


def test_every_experiment_that_is_shown_runs_in_a_copy_of_the_workspace():
    assert len(EXPERIMENTS) > 20
    in_copies = ("dvc exp run --temp ", "dvc exp run --queue ", "dvc exp run --run-all ")
    assert [line for line in EXPERIMENTS if not line.startswith(in_copies)] == []


@pytest.mark.slow
def test_the_experiments_of_the_readme_leave_the_workspace_as_it_was(finished: Path):
    base = run(finished, "git", "rev-parse", "HEAD").strip()
    run_block(finished, "README.md", [line for lines in COMMANDS.values() for line in lines if line in EITHER][:1])
    before = state_of(finished)
    shown = [
        line for block in COMMANDS if block.startswith("README") for line in COMMANDS[block] if line in EXPERIMENTS
    ]
    assert shown and run(finished, "git", "status", "--porcelain") == ""
    for line in shown:
        run_block(finished, "README.md", [line])
        assert state_of(finished) == before, line
    restore(finished, base)


@pytest.mark.slow
@pytest.mark.parametrize("block", to_run(AFTER_A_RUN))
def test_commands_run_after_the_graph_has(finished: Path, block: str):
    base = run(finished, "git", "rev-parse", "HEAD").strip()
    run_block(finished, block, to_run(AFTER_A_RUN)[block])
    restore(finished, base)
    shutil.rmtree(finished / "rewards/quality", ignore_errors=True)
    run(finished, "dvc", "checkout", "-q", "--force")
