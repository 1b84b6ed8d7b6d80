import copy
import json

import pytest
import torch
from one_line import told
from taught_standins import OVER, leaning

from rlhf_lib.evaluation import sampling as evaluation
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.evaluation.samples import in_mode
from rlhf_lib.evaluation.sampling import Evaluator
from rlhf_lib.generation.decoding import generate
from rlhf_lib.generation.sampling import Sampling, random_numbers
from rlhf_lib.measure.policy_metrics import dataset_summary, summary
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids, prompt_ids
from rlhf_lib.models.stops import stop_ids
from rlhf_lib.scoring.reward_model import RewardModel

TASK = "Name the sound of a wolf. Finish with a good wish."
ROWS = [
    {
        "id": f"row-{i}",
        "source": "demo/facts",
        "prompt": [{"role": "user", "content": text}],
        "responses": [{"content": "Cat.", "score": 2.0}, {"content": "It is howl.", "score": 6.0}],
    }
    for i, text in enumerate([TASK, "the wolf", "Describe the sky in one word."])
]
KEYS = {
    *("id", "source", "mode", "draw", "prompt", "response", "reward", "judge", "logprob", "ref_logprob", "length"),
    *("finished", "gold", "format"),
}


def params(**changes):
    defaults = {"split": "test", "seed": 0, "sources": [], "max_prompts": None, "samples_per_prompt": 2}
    defaults |= {
        "temperatures": [1.0],
        "min_new_tokens": 0,
        "top_k": 0,
        "top_p": 1.0,
        "no_repeat_ngram_size": 0,
        "num_beams": 1,
        "stop_strings": [],
        "bf16_full_eval": False,
    }
    return EvaluateParams(**{**defaults, "max_new_tokens": 6, "per_device_eval_batch_size": 4, **changes})


@pytest.fixture(scope="module")
def sft(tiny):
    return models.load_policy(tiny.policy)


@pytest.fixture(scope="module")
def moved(sft):
    policy = copy.deepcopy(sft)
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return policy


@pytest.fixture(scope="module")
def reward(tiny):
    return RewardModel.load(tiny.reward)


class Judge:
    """A second reward model; it writes down what it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompts, completions, progress=None):
        self.asked += [(prompt[-1]["content"], text) for prompt, text in zip(prompts, completions, strict=True)]
        return [float(len(text)) for text in completions]


@pytest.fixture
def build(sft, reward, tokenizer):
    def build(policy, reference=sft, judge=None, **changes):
        scorers = {"reward": reward, "judge": judge or Judge()}
        return Evaluator(params(**changes), policy, reference, scorers, tokenizer)

    return build


def sampled(samples):
    return [s for s in samples if s["mode"] != "dataset"]


def test_samples_have_the_documented_keys(build, moved):
    got = sampled(build(moved, temperatures=[0.7]).samples(ROWS))
    assert all(set(s) == KEYS for s in got)
    assert [(s["id"], s["draw"]) for s in got] == [(row["id"], draw) for row in ROWS for draw in range(2)]
    assert {s["mode"] for s in got} == {"t0_7"}
    assert all(s["prompt"] == row["prompt"] for s, row in zip(got, [r for r in ROWS for _ in range(2)], strict=True))
    assert all(1 <= s["length"] <= 6 and (s["finished"] or s["length"] == 6) for s in got)
    assert all(0 <= s["gold"] <= 1 for s in got)


def test_the_dataset_is_a_mode_of_its_own(build, moved):
    got = in_mode(build(moved).samples(ROWS), "dataset")
    assert all(set(s) == KEYS | {"score", "chosen"} for s in got)
    assert [(s["id"], s["draw"], s["response"], s["score"], s["chosen"]) for s in got] == [
        (row["id"], *told) for row in ROWS for told in ((0, "Cat.", 2.0, False), (1, "It is howl.", 6.0, True))
    ]
    assert all(s["finished"] for s in got)


def test_the_first_of_the_best_responses_is_the_chosen_one(sft, tokenizer):
    scores = [1.0, 3.0, 3.0]
    row = {**ROWS[0], "responses": [{"content": f"{i}", "score": score} for i, score in enumerate(scores)]}
    said = evaluation.dataset(sft, tokenizer, [row, {**row, "responses": []}])
    assert [s.sample["chosen"] for s in said] == [False, True, False]


def test_modes_come_in_the_order_of_the_temperatures(build, moved):
    got = build(moved, temperatures=[0.7, 0.0, 1.0]).samples(ROWS)
    assert list(dict.fromkeys(s["mode"] for s in got)) == ["t0_7", "greedy", "t1", "dataset"]


def test_a_source_without_a_rule_has_no_true_quality(build, moved):
    got = sampled(build(moved).samples([{**row, "source": "other"} for row in ROWS]))
    assert all(set(s) == KEYS - {"gold", "format"} for s in got)


def test_the_seed_alone_decides_the_samples(build, moved):
    expected = build(moved).samples(ROWS)
    torch.rand(7)  # whatever was drawn before
    assert build(moved).samples(ROWS) == expected
    assert sampled(build(moved, seed=1).samples(ROWS)) != sampled(expected)


def test_the_draws_of_a_prompt_differ(build, moved):
    got = sampled(build(moved, samples_per_prompt=8).samples(ROWS[:1]))
    assert len(got) == 8 and len({s["response"] for s in got}) > 1


def test_another_purpose_draws_other_answers(sft, tokenizer):
    def texts(*purpose):
        said = evaluation.draw(sft, tokenizer, ROWS, params(), 1.0, 3, "t1", *purpose)
        return [s.sample["response"] for s in said]

    assert texts() == texts() != texts(1)


def test_greedy_is_one_draw(build, moved):
    got = sampled(build(moved, temperatures=[0.0]).samples(ROWS))
    assert [(s["id"], s["draw"], s["mode"]) for s in got] == [(row["id"], 0, "greedy") for row in ROWS]


def test_the_test_rows_are_the_first_by_id_of_the_sources(tmp_path):
    sources = {"c": "puns", "a": "hh/helpful", "d": "puns", "b": "hh/harmless"}
    (tmp_path / "test.jsonl").write_text(
        "".join(json.dumps({"id": i, "source": source}) + "\n" for i, source in sources.items())
    )

    def ids(**changes):
        return [row["id"] for row in evaluation.held_out_rows(tmp_path / "test.jsonl", params(**changes))]

    assert ids(max_prompts=3) == ["a", "b", "c"] and ids() == ["a", "b", "c", "d"]
    assert ids(sources=["puns"]) == ["c", "d"] and ids(sources=["hh/harmless", "puns"], max_prompts=2) == ["b", "c"]
    assert ids(sources=["hh"]) == ["a", "b"]
    assert told(ids, sources=["pun"]) == (
        "params.yaml: evaluate.sources: no test row of pun; sources of test rows: hh, hh/harmless, hh/helpful, puns"
    )


@pytest.mark.parametrize("loaded", ["once", "twice"])
def test_the_sft_model_is_at_no_distance_from_itself(build, tiny, sft, loaded):
    policy = sft if loaded == "once" else models.load_policy(tiny.policy)
    samples = build(policy, temperatures=[1.0, 0.7, 0.0]).samples(ROWS)
    assert all(s["logprob"] == s["ref_logprob"] for s in samples)
    for mode in ("t1", "t0_7", "greedy"):
        got = summary(in_mode(samples, mode), in_mode(samples, mode), in_mode(samples, "dataset"))
        assert (got["kl"], got["win_rate"], got["gold_gain"]) == (0.0, 0.5, 0.0)
    assert dataset_summary(in_mode(samples, "dataset"))["preference_accuracy"] == 0.5


def test_the_sft_models_log_probs_are_computed_once(build, sft, monkeypatch):
    called = []
    compute = evaluation.sequence_logprobs

    def counted(*args, **options):
        called.append(args[2])
        return compute(*args, **options)

    monkeypatch.setattr(evaluation, "sequence_logprobs", counted)
    samples = build(sft, temperatures=[1.0, 0.0]).samples(ROWS)
    assert [len(responses) for responses in called] == [len(samples)]  # all of them at temperature 1


def test_a_text_is_scored_once(build, moved):
    judge = Judge()
    samples = build(moved, judge=judge, temperatures=[1.0, 0.5, 0.0]).samples(ROWS)
    assert sorted(judge.asked) == sorted({(s["prompt"][-1]["content"], s["response"]) for s in samples})
    assert all(s["judge"] == len(s["response"]) for s in samples)


def logprob_by_hand(model, prompt, ids, temperature):
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].double() / temperature
    return logits.log_softmax(-1)[range(len(ids)), ids].sum().item()


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_logprobs_and_rewards_are_those_of_the_response(build, moved, sft, reward, tokenizer, temperature):
    got = sampled(build(moved, temperatures=[temperature]).samples(ROWS))
    prompts = [prompt_ids(tokenizer, s["prompt"]) for s in got]
    sampling = Sampling(6, temperature)
    responses = generate(moved, tokenizer, prompts, sampling, random_numbers(len(prompts), sampling, 0), 4)
    for s, prompt, response in zip(got, prompts, responses, strict=True):
        ids = response.ids
        assert (s["length"], s["finished"]) == (len(ids), response.finished)
        assert s["response"] == tokenizer.decode(ids, skip_special_tokens=True)
        for key, model in (("logprob", moved), ("ref_logprob", sft)):
            assert s[key] == pytest.approx(logprob_by_hand(model, prompt, ids, temperature or 1.0), abs=1e-3)
        dialogue = torch.tensor([dialogue_ids(tokenizer, s["prompt"], s["response"])[-64:]])
        with torch.no_grad():
            score = reward.model.score(reward.model.transformer(dialogue).last_hidden_state[0, -1]).item()
        assert s["reward"] == pytest.approx((score - 0.1) / 0.5, abs=1e-4)


def test_logprobs_of_the_datasets_responses_are_at_temperature_1(build, moved, sft, tokenizer):
    for s in in_mode(build(moved, temperatures=[0.5]).samples(ROWS), "dataset"):
        prompt = prompt_ids(tokenizer, s["prompt"])
        ids = dialogue_ids(tokenizer, s["prompt"], s["response"])[len(prompt) :]
        assert s["length"] == len(ids) and ids[-1] == tokenizer.eos_token_id
        for key, model in (("logprob", moved), ("ref_logprob", sft)):
            assert s[key] == pytest.approx(logprob_by_hand(model, prompt, ids, 1.0), abs=1e-3)


def test_a_dialogue_longer_than_the_context_loses_its_end(sft, tokenizer):
    long = [{"role": "user", "content": "cat " * 100}]
    answers = [{"content": "dog " * 100, "score": 1.0}, {"content": "Cat.", "score": 2.0}]
    rows = [{**ROWS[0], "prompt": long, "responses": answers[:1]}, {**ROWS[0], "responses": answers}]
    of_prompt, of_answer, short = evaluation.dataset(sft, tokenizer, rows)
    # a prompt that fills the context leaves one token
    assert (len(of_prompt.prompt), len(of_prompt.response.ids)) == (63, 1)
    assert len(of_answer.prompt) + len(of_answer.response.ids) == 64
    assert [s.sample["finished"] for s in (of_prompt, of_answer, short)] == [False, False, True]


def test_a_test_set_without_scored_responses_is_sampled_all_the_same(build, moved):
    samples = build(moved).samples([{**row, "responses": []} for row in ROWS])
    assert len(samples) == 6 and dataset_summary(in_mode(samples, "dataset"))["perplexity"] is None


def test_each_policy_is_told_by_the_same_metrics(build, moved, sft):
    of_sft, of_moved = (build(policy).samples(ROWS) for policy in (sft, moved))
    first, second = (summary(sampled(s), sampled(of_sft), in_mode(s, "dataset")) for s in (of_sft, of_moved))
    assert list(first) == list(second) and second["kl"] != 0


def test_the_first_answer_of_a_prompt_without_scores_is_the_chosen_one(build, moved):
    unscored = [{"content": text, "score": None, "target": None} for text in ("Cat.", "Dog.")]
    got = in_mode(build(moved).samples([{**ROWS[0], "responses": unscored}]), "dataset")
    assert [(s["score"], s["chosen"]) for s in got] == [(None, True), (None, False)]


def test_without_reward_models_there_are_no_scores(moved, sft, tokenizer):
    got = sampled(Evaluator(params(), moved, sft, {}, tokenizer).samples(ROWS))
    assert all(set(s) == KEYS - {"reward", "judge"} for s in got)


def test_own_responses_end_where_a_policy_would_have_ended(tmp_path):
    """The template writes more behind an answer than the token that ends it."""
    folder = leaning(tmp_path)
    policy, tokenizer = models.load_policy(folder), models.load_tokenizer(folder)
    row = {**ROWS[0], "responses": [{"content": "Cat.", "score": 1.0}]}
    end = tokenizer.convert_tokens_to_ids(OVER)
    (said,) = evaluation.dataset(policy, tokenizer, [row])
    assert dialogue_ids(tokenizer, row["prompt"], "Cat.")[-2] == end
    assert said.response.ids == [*tokenizer("Cat.")["input_ids"], end]
    assert (said.sample["response"], said.sample["length"], said.sample["finished"]) == (
        "Cat.",
        len(said.response.ids),
        True,
    )
    assert said.distribution.stop_ids == stop_ids(policy)


def test_evaluation_in_bf16_is_near_that_in_fp32(tiny, tokenizer):
    """Greedy answers and the rows' own; of one model the log-probs are those of its reference."""
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        sft, reward = models.load_policy(tiny.policy, dtype), RewardModel.load(tiny.reward, dtype=dtype)
        evaluator = Evaluator(
            params(temperatures=[0.0]), models.load_policy(tiny.policy, dtype), sft, {"reward": reward}, tokenizer
        )
        found[dtype] = in_mode(evaluator.samples(ROWS), "dataset")
        assert all(s["logprob"] == s["ref_logprob"] for s in found[dtype])
    for key, tolerance in (("logprob", 0.05), ("reward", 0.05)):
        exact, rounded = ([s[key] for s in found[dtype]] for dtype in (torch.float32, torch.bfloat16))
        assert rounded == pytest.approx(exact, abs=tolerance) and rounded != exact
