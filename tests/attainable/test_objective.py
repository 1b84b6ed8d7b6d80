import dataclasses

import pytest
from project import DEMO

from rlhf_lib.attainable import objective, rewards
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.schema import check, read
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.models.loading import load_tokenizer
from rlhf_lib.ppo.params import PPOParams

PPO, EVALUATE = read("ppo", PPOParams, DEMO), read("evaluate", EvaluateParams, DEMO)
SAMPLES = [
    {"id": "a", "total": 1.0, "length": 3, "finished": True},
    {"id": "a", "total": 5.0, "length": 48, "finished": False},
]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1.0, 3.0]),
        ({"missing_eos_penalty": None}, [1.0, 5.0]),
        ({"missing_eos_replaces": True}, [1.0, -2.0]),
        ({"reward_clip": 4.0}, [1.0, 2.0]),
        ({"length_penalty": 0.25}, [0.25, -9.0]),
        ({"scale_rewards": "running"}, [0.5, 0.5]),
    ],
)
def test_scores_are_what_ppo_learns_from(changes, expected):
    samples = [dict(sample) for sample in SAMPLES]
    std = objective.spread(samples)
    assert std == 2.0
    objective.put_scores(samples, dataclasses.replace(PPO, **changes), std)
    assert [sample["score"] for sample in samples] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, None),
        ({"loss_aggregation": "constant"}, None),
        ({"kl_target": 6.0}, "ppo.kl_target: 6 moves kl_coef"),
        ({"kl_clip": 0.5}, "ppo.kl_clip: 0.5 clips the KL"),
        ({"kl_estimator": "k2"}, "ppo.kl_estimator: k2 in the reward has not the gradient of the KL"),
        ({"kl_estimator": "k3"}, "ppo.kl_estimator: k3 in the reward has not the gradient of the KL"),
        (
            {"kl_in": "loss", "kl_estimator": "k2"},
            "ppo.kl_in: in the loss a token does not answer for the KL of those after it",
        ),
        (
            {"loss_aggregation": "sequence"},
            "ppo.loss_aggregation: in sequence a token counts less the longer its response is",
        ),
        ({"gamma": 0.9}, "ppo.gamma: 0.9 is not 1"),
        ({"entropy_coef": 0.01}, "ppo.entropy_coef: 0.01 is not 0"),
        ({"ptx_coef": 1.0}, "ppo.ptx_coef: 1 is not 0"),
        ({"top_k": 5}, "ppo.top_k: 5 leaves out tokens, for each policy others"),
        ({"top_p": 0.9}, "ppo.top_p: 0.9 leaves out tokens, for each policy others"),
    ],
)
def test_what_else_ppo_learns_from_is_told(changes, named):
    told = list(objective.departures(dataclasses.replace(PPO, **changes)))
    assert [line.partition(";")[0] for line in told] == ([named] if named else [])


def test_policies_are_compared_where_they_were_sampled_as_in_ppo():
    assert objective.mode(EVALUATE, PPO) == "t1"
    assert objective.mode(EVALUATE, dataclasses.replace(PPO, temperature=0.7)) == "t0_7"


@pytest.mark.parametrize(
    ("evaluate", "ppo", "why"),
    [
        ({"max_new_tokens": 64}, {}, "evaluate.max_new_tokens is 64, ppo.response_length 48; make them equal"),
        ({}, {"top_k": 5}, "evaluate.top_k is 0, ppo.top_k 5; make them equal"),
        ({}, {"top_p": 0.9}, "evaluate.top_p is 1, ppo.top_p 0.9; make them equal"),
        ({"no_repeat_ngram_size": 3}, {}, "evaluate.no_repeat_ngram_size is not 0"),
        ({}, {"stop_strings": ["\n"]}, "evaluate.stop_strings are [], ppo.stop_strings ['\\n']; make them"),
        ({}, {"temperature": 0.5}, "ppo.temperature, 0.5, is none of evaluate.temperatures; add it"),
    ],
)
def test_else_no_policy_is_compared(tmp_path, monkeypatch, capsys, evaluate, ppo, why):
    monkeypatch.chdir(tmp_path)
    changed = dataclasses.replace(EVALUATE, **evaluate), dataclasses.replace(PPO, **ppo)
    assert objective.compared(*changed, {"a"}) == {}
    told = capsys.readouterr().out
    assert told.startswith(f"attained: no policy is compared with it: {why}") and told.count("\n") == 1


def test_the_samples_of_the_same_prompts_are_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"id": i, "mode": mode} for i in "ab" for mode in ("t1", "greedy")]
    for name, samples in (("sft", rows), ("ppo", rows), ("dpo", [])):
        write_jsonl(f"data/samples/{name}.jsonl", samples)
    assert objective.compared(EVALUATE, PPO, {"b"}) == {"ppo": [{"id": "b", "mode": "t1"}]}


ROWS = [
    {"id": "a", "source": "demo/facts", "prompt": [{"role": "user", "content": "x"}], "responses": [], "solution": "9"},
    {"id": "b", "source": "demo/facts", "prompt": [{"role": "user", "content": "y"}], "responses": [], "solution": "4"},
]


def said(*texts):
    return [{"id": i, "response": text, "reward": 0.25} for i, text in texts]


@pytest.mark.parametrize(("weights", "expected"), [(None, 0.25), ([2.0], 0.5)])
def test_the_reward_models_reward_is_not_computed_again(weights, expected):
    samples = said(("a", "1"))
    rewards.put(samples, [], None, ["models/reward"], weights, True, 8)
    assert samples[0]["total"] == expected


def test_functions_get_the_columns_and_the_tokens_of_the_text(tiny, tmp_path, monkeypatch):
    (tmp_path / "mine_for_attainable.py").write_text(
        "def right(completions, solution, **columns):\n"
        "    assert 'responses' not in columns and 'trainer_state' in columns\n"
        "    return [float(c[0]['content'] == s) for c, s in zip(completions, solution, strict=True)]\n"
        "def tokens(completion_ids, **columns):\n"
        "    return [float(len(ids)) for ids in completion_ids]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tokenizer, samples = load_tokenizer(tiny.policy), said(("a", "9"), ("b", "9"), ("b", "4"), ("a", "9"))
    names = ["mine_for_attainable:right", "mine_for_attainable:tokens"]
    rewards.put(samples, ROWS, tokenizer, names, [1.0, 0.5], True, 8)
    counts = [len(tokenizer(sample["response"])["input_ids"]) for sample in samples]
    assert [sample["total"] for sample in samples] == [r + n / 2 for r, n in zip((1, 0, 1, 1), counts, strict=True)]


def test_a_function_that_asks_for_a_column_that_is_not_there_is_told(tiny, tmp_path, monkeypatch):
    (tmp_path / "mine_without_column.py").write_text("def right(completions, answer):\n    return [0.0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ParamsError, match=r"ppo\.reward_funcs: right .*answer"):
        rewards.put(said(("a", "9")), ROWS, load_tokenizer(tiny.policy), ["mine_without_column:right"], None, True, 8)


def test_bad_params_are_told_in_one_line():
    from rlhf_lib.attainable.params import AttainableParams

    good = load_yaml(DEMO)["attainable"]
    for changes, fault in (
        ({"n": 1}, "attainable.n: must be at least 2, or 0 to leave it out; one answer cannot be weighed against"),
        ({"n": -1}, "attainable.n: must be at least 0"),
        ({"max_prompts": 0}, "attainable.max_prompts: must be at least 1"),
        ({"betas": [0.1, 0.0]}, "attainable.betas[1]: must be above 0"),
        ({"betas": [0.1, 0.2, 0.1]}, "attainable.betas[2]: 0.1 stands there twice; remove one"),
        ({"betas": 0.1}, "attainable.betas: "),
        ({"beta": 0.1}, "attainable.beta: unknown key; did you mean attainable.betas?"),
    ):
        with pytest.raises(ParamsError) as error:
            check(AttainableParams, {**good, **changes}, "attainable")
        assert str(error.value).startswith(f"params.yaml: {fault}") and "\n" not in str(error.value)
    assert check(AttainableParams, {**good, "n": 0, "betas": []}, "attainable").n == 0
