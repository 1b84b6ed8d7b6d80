"""Where the outs of the stages lie, as dvc.yaml declares them; spelled here and nowhere else in Python."""

from __future__ import annotations


def model(stage: str) -> str:
    """The model that a stage writes, with its tokenizer."""
    return f"models/{stage}"


BASE, SFT, REWARD, JUDGE, DPO, PPO, KTO = map(model, ("base", "sft", "reward", "judge", "dpo", "ppo", "kto"))
INPUTS, CANDIDATES = "data/inputs", "data/candidates"
RAW, SPLITS, REJECTED = "data/raw", "data/splits", "data/rejected.jsonl"
DATA_METRICS = "metrics/data.json"
LLM_JUDGE_ROWS, LLM_JUDGE_METRICS = "data/llm_judge.jsonl", "metrics/llm_judge.json"
ATTAINABLE, ATTAINABLE_CURVE = "metrics/attainable.json", "metrics/attainable.tsv"
OVEROPTIMISATION = "metrics/overoptimisation.tsv"
POLICY_METRICS, FRONTIER = "metrics/policy.json", "metrics/frontier.tsv"
LM_EVAL, LM_EVAL_ROWS = "metrics/lm_eval.json", "data/lm_eval"  # of make lm-eval; no stage writes them
REPORT, COMPARISON = "report", "metrics/comparison.json"


def split(name: str) -> str:
    """A file of data/splits, such as sft_train or test."""
    return f"{SPLITS}/{name}.jsonl"


def with_negatives(name: str) -> str:
    """The training pairs of a split with those that stage negatives added: preference_train or reward_train."""
    return f"data/negatives/{name}.jsonl"


def reference(part: str) -> str:
    """The SFT model's log-probs of the train or validation pairs."""
    return f"data/reference/{part}.jsonl"


def candidates(part: str) -> str:
    """The SFT model's answers to the train or validation prompts, from which rft chooses."""
    return f"{CANDIDATES}/{part}.jsonl"


def chosen(policy: str, part: str) -> str:
    """What rft, or its control, chose of the candidates of that part."""
    return f"data/{policy}/{part}.jsonl"


def samples(name: str) -> str:
    """The sampled answers of a policy, of best_of_n, or of ppo_training."""
    return f"data/samples/{name}.jsonl"


def scores(section: str) -> str:
    """What the reward model of a section says of the test split's answers."""
    return f"data/scores/{section}.jsonl"


def evaluation(name: str) -> str:
    """The numbers of a policy, or of best_of_n."""
    return f"metrics/eval/{name}.json"


def summary(stage: str) -> str:
    """The last numbers of a stage that trains or samples."""
    return f"metrics/{stage}/summary.json"


def curve(stage: str, part: str) -> str:
    """The curve of a stage's training: part train or eval."""
    return f"metrics/{stage}/{part}.tsv"
