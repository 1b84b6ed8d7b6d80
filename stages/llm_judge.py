"""A language model's comparison of the policies' answers -> data/llm_judge.jsonl and metrics/llm_judge.json."""

from functools import partial
from typing import Any

from rlhf_lib.common import few, left_out, paths, running
from rlhf_lib.common.files import write_json
from rlhf_lib.common.rows import read_jsonl, write_jsonl
from rlhf_lib.common.schema import read
from rlhf_lib.evaluation.samples import mode_name
from rlhf_lib.llm_judge import client as llm_client
from rlhf_lib.llm_judge import judge as llm_judge
from rlhf_lib.llm_judge.params import LLMJudgeParams


def main() -> None:
    params = read("llm_judge", LLMJudgeParams)
    rows, metrics = judged(params) if params.base_url else ([], {})
    write_jsonl(paths.LLM_JUDGE_ROWS, rows)
    write_json(paths.LLM_JUDGE_METRICS, {"llm_judge": metrics})


def judged(params: LLMJudgeParams) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of data/llm_judge.jsonl, and the numbers of each comparison."""
    mode = mode_name(read("evaluate.temperatures", list[float])[0])
    comparisons = [comparison for comparison in params.comparisons if can_be_made(comparison)]
    policies = sorted({policy for comparison in comparisons for policy in comparison.split("-")})
    samples = {
        policy: [s for s in read_jsonl(paths.samples(policy)) if s["mode"] == mode and s["draw"] == 0]
        for policy in policies
    }
    rubric = llm_judge.read_rubric(params.rubric)
    pairs = llm_judge.pairs(samples, comparisons, params.max_prompts)
    cache = llm_client.ReplyCache(llm_client.cache_folder())
    rows, replies = llm_judge.judge(pairs, rubric, partial(llm_client.ask, params, cache))
    metrics = {
        comparison: llm_judge.summary([row for row in rows if row["comparison"] == comparison])
        for comparison in comparisons
    }
    few.tell("llm_judge", test=({"prompt": pair.prompt} for pair in pairs))
    return rows, {**metrics, **llm_judge.totals(replies, params.prompt_price, params.completion_price)}


def can_be_made(comparison: str) -> bool:
    """Whether both policies have answers; a line where one was left out."""
    absent = [why for policy in comparison.split("-") if (why := left_out.reason(paths.samples(policy)))]
    if absent:
        print(f"llm_judge: {comparison}: left out: {absent[0]}")
    return not absent


if __name__ == "__main__":
    running.run(main)
