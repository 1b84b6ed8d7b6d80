"""What a killed evaluation keeps of its answers."""

import json

import pytest
from shipped_params import check
from tiny_models import TEXTS

from rlhf_lib.evaluation.draws import Draws
from rlhf_lib.evaluation.sampling import Evaluator
from rlhf_lib.models import loading as models
from rlhf_lib.scoring.reward_model import RewardModel

ROWS = [
    {
        "id": f"row-{i}",
        "source": "other",
        "prompt": [{"role": "user", "content": text}],
        "responses": [{"content": "Cat.", "score": 2.0}],
    }
    for i, text in enumerate(TEXTS[:9])
]
ONE_BY_ONE = {"max_new_tokens": 6, "samples_per_prompt": 2, "per_device_eval_batch_size": 1, "top_k": 5}


@pytest.mark.parametrize("kind", ["evaluate", "best_of_n"])
def test_what_it_saved_is_not_drawn_again(tiny, tokenizer, tmp_path, capsys, kind):
    policy, reward = models.load_policy(tiny.policy), RewardModel.load(tiny.reward)
    params = check("evaluate", {**ONE_BY_ONE, "temperatures": [1.0, 0.0]})

    def samples(file=None):
        if kind == "evaluate":
            return Evaluator(params, policy, policy, {"reward": reward}, tokenizer).samples(ROWS, file)
        return Draws(policy, tokenizer, ROWS, params, 1.0, 2, "candidate").samples(file)

    expected, file = samples(), tmp_path / "samples.jsonl"
    assert samples(file) == expected
    first, second, third = file.read_bytes().splitlines(keepends=True)
    of_prompts = json.loads(first)
    assert len(of_prompts) == 4, "eight batches of one answer, of which a prompt has two"
    marked = [[{**one, "response": f"marked {one['draw']}"} for one in of_prompt] for of_prompt in of_prompts]
    file.write_bytes(json.dumps(marked).encode() + b"\n" + second[: len(second) // 2])
    capsys.readouterr()
    got = samples(file)
    assert capsys.readouterr().out == "resuming after 4 of 9 prompts\n"
    assert file.read_bytes().splitlines(keepends=True)[1:] == [second, third]
    kept = {row["id"] for row in ROWS[:4]}
    assert {one["response"] for one in got if one["id"] in kept} == {"marked 0", "marked 1"}
    for one, as_expected in zip(got, expected, strict=True):
        if one["id"] in kept:  # scored anew
            assert [one[key] for key in ("id", "mode", "draw")] == [as_expected[key] for key in ("id", "mode", "draw")]
        else:
            assert one == as_expected
