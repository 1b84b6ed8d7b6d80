"""What the stages learn from and are tested on: rows and their lengths in tokens, from the files or assumed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lib.common import paths
from rlhf_lib.common.fitting import spread_sample
from rlhf_lib.common.policies import POLICIES
from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.data import made
from rlhf_lib.data.lengths import ANSWERS, ROWS, Lengths, measure

# The first that is there says what a stage learns from.
FILES = {
    "sft": (paths.split("sft_train"),),
    "reward": (paths.with_negatives("reward_train"), paths.split("reward_train")),
    "judge": (paths.split("judge_train"),),
    "dpo": (paths.with_negatives("preference_train"), paths.split("preference_train")),
    "ppo": (paths.split("prompts_train"),),
    "rft": (paths.chosen("rft", "train"),),
    "rft_random": (paths.chosen("rft_random", "train"),),
    "kto": (paths.split("thumbs_train"),),
}
VALIDATION = {stage: paths.split(f"{stage}_validation") for stage in ("sft", "reward", "judge")}
VALIDATION |= {"dpo": paths.split("preference_validation")}
VALIDATION |= {stage: paths.split("prompts_validation") for stage in ("ppo", "rft", "rft_random")}
VALIDATION["kto"] = paths.split("thumbs_validation")
# splits of which params bound the lengths
BOUNDED = ("sft_train", "reward_train", "groups_train", "judge_train", "preference_train", "thumbs_train")
ASSUMED_ROWS = 1000
SAMPLE = 2000  # rows of a file whose tokens are counted


@dataclass(frozen=True)
class Data:
    """Rows of a stage, or pairs; mean tokens of a row, and of the longest ones; `assumed` where there are no files."""

    rows: int
    mean: float
    longest: int
    assumed: bool


def there(file: str) -> bool:
    """Whether a file of rows is there, and not of a run with other params."""
    return Path(file).is_file() and not made.otherwise(file)


def data_of(stage: str, max_length: int, length: Lengths, assumed: int | None = None) -> Data:
    """Rows and lengths in tokens, of the stage's file, none above `max_length`.

    Without a file, `ASSUMED_ROWS` rows of `assumed` tokens, or of `max_length`.
    """
    file = next((name for name in FILES[stage] if there(name)), None)
    if file is None:
        tokens = min(assumed or max_length, max_length)
        return Data(ASSUMED_ROWS, tokens, tokens, True)
    rows = read_jsonl(file)
    found = [min(_tokens(row, length), max_length) for row in spread_sample(rows, SAMPLE)]
    if not found:
        return Data(0, 0.0, max_length, False)
    return Data(len(rows), statistics.fmean(found), max(8, round(max(found))), False)


def of_chosen(stage: str, max_length: int, length: Lengths, prompts: Data, candidates: Any) -> Data:
    """Of rft and its control: what they chose where they have run, else a row for each prompt, with the longest answer
    that params section `candidates` allows."""
    if there(FILES[stage][0]):
        return data_of(stage, max_length, length)
    mean, longest = (min(tokens + candidates.max_new_tokens, max_length) for tokens in (prompts.mean, prompts.longest))
    return Data(_at_most(prompts.rows, candidates.max_prompts), mean, round(longest), prompts.assumed)


def measured(length: Lengths) -> dict[str, dict[str, list[int]]]:
    """Of the splits that are there, the tokens of answers and rows, as `lengths.told` takes them; of a sample."""
    found = {}
    for split in BOUNDED:
        if there(paths.split(split)):
            rows = [measure(row, length) for row in spread_sample(read_jsonl(paths.split(split)), SAMPLE)]
            answers = [tokens for _, answered in rows for tokens in answered]
            found[split] = {ANSWERS: answers, ROWS: [asked + max(answered, default=0) for asked, answered in rows]}
    return found


def rows_in(file: str) -> int:
    """Rows of a JSON Lines file; 0 where it is not `there`."""
    return sum(1 for line in Path(file).read_bytes().splitlines() if line.strip()) if there(file) else 0


def validations(params: Any, steps: float, rows: float) -> float:
    """How often a trainer of so many steps over so many rows validates: each `eval_steps`, but at least once, or after
    each pass."""
    if params.eval_strategy == "steps":
        return max(1.0, steps // params.eval_steps)
    per_step = params.per_device_train_batch_size * params.gradient_accumulation_steps
    return math.ceil(steps * per_step / rows) if rows else 0.0


def validation_tokens(ppo: Any) -> float:
    """What PPO samples at most on its validation prompts, which it answers twice, sampled and greedy: before the first
    rollout, after each `eval_rollouts`, and after the last one."""
    prompts = _at_most(rows_in(VALIDATION["ppo"]), ppo.max_eval_prompts)
    return 2.0 * prompts * ppo.response_length * (1 + math.ceil(ppo.total_rollouts / ppo.eval_rollouts))


def evaluation_tokens(sections: Mapping[str, Any]) -> float:
    """What evaluate, best_of_n, attainable and candidates sample at most: answers of all policies to the test prompts,
    at each temperature, and many more of the SFT model."""
    params, best_of_n, attainable = sections["evaluate"], sections["best_of_n"], sections["attainable"]
    file = paths.split(params.split)
    prompts = _at_most(rows_in(file) if there(file) else ASSUMED_ROWS, params.max_prompts)
    answers = sum(params.samples_per_prompt if temperature else params.num_beams for temperature in params.temperatures)
    policies = [name for name in POLICIES if getattr(sections["methods"], name, True)]
    evaluated = prompts * params.max_new_tokens * (len(policies) * answers + max(best_of_n.n, default=0))
    estimated = _at_most(prompts, attainable.max_prompts) * attainable.n * sections["ppo"].response_length
    return float(evaluated + estimated + candidate_tokens(sections))


def candidate_tokens(sections: Mapping[str, Any]) -> int:
    """What candidates samples at most; 0 where rft is not wanted."""
    params = sections["candidates"]
    if not sections["methods"].rft:
        return 0
    prompts = [rows_in(file) for file in (*FILES["ppo"], VALIDATION["ppo"])] if there(FILES["ppo"][0]) else []
    answered = sum(_at_most(count, params.max_prompts) for count in prompts or [ASSUMED_ROWS])
    return int(answered * params.n * params.max_new_tokens)


def _at_most(count: int, most: int | None) -> int:
    """So many of `count`; None: all."""
    return count if most is None else min(count, most)


def _tokens(row: Mapping[str, Any], length: Lengths) -> float:
    """Of prompt and answer; of a pair, prompt and the mean of its answers."""
    asked, answered = measure(row, length)
    return asked + statistics.fmean(answered or [0])
