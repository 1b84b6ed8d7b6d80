"""A policy is judged by `evaluate` at the very sampling at which PPO trained it."""

import pytest
import torch
from ppo_trainers import EVAL_ROWS
from shipped_params import check

from rlhf_lib.evaluation.sampling import Evaluator
from rlhf_lib.models import loading as models

# as the presets of UltraFeedback train; texts that end an answer beside it
OWN = {"temperature": 0.2, "top_k": 50, "top_p": 0.95, "min_new_tokens": 3, "stop_strings": ["e"], "response_length": 8}


def evaluate_params(changes):
    """Those of `evaluate` for a policy with these of `ppo`."""
    own = {**OWN, **changes}
    names = ("top_k", "top_p", "min_new_tokens", "stop_strings")
    return check(
        "evaluate",
        {
            **{name: own[name] for name in names},
            "temperatures": [own["temperature"]],
            "max_new_tokens": own["response_length"],
            "samples_per_prompt": 1,
        },
    )


@pytest.mark.parametrize("changes", [{}, {"top_k": 0}, {"top_p": 1.0, "stop_strings": []}, {"min_new_tokens": 0}])
def test_answers_and_their_kl_are_those_of_ppos_own_evaluation(build, ending, tokenizer, changes):
    """Both draw with the same random numbers: the answers are the same, token for token, and so is each one's KL."""
    trainer = build(**{**OWN, **changes})
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in trainer.model.policy.parameters():
            weight.add_(0.03 * torch.randn_like(weight))
    expected = trainer.sampler.measure(trainer.eval_prompts, trainer.sampling, trainer.distribution)
    sft = models.load_policy(ending)
    evaluator = Evaluator(evaluate_params(changes), trainer.model.policy, sft, {}, tokenizer)
    samples = evaluator.samples([{**row, "responses": []} for row in EVAL_ROWS])
    assert [sample["response"] for sample in samples] == expected.texts
    assert [sample["length"] for sample in samples] == [len(response.ids) for response in expected.responses]
    kl = [sample["logprob"] - sample["ref_logprob"] for sample in samples]
    assert kl == pytest.approx(expected.kl.tolist(), abs=1e-4)
    assert max(map(abs, kl)) > 0.01


def test_a_text_ends_an_answer_as_it_does_in_ppo(tiny, tokenizer):
    policy = models.load_policy(tiny.policy)
    rows = [{**row, "responses": []} for row in EVAL_ROWS]

    def said(**changes):
        params = evaluate_params({"response_length": 24, **changes})
        return Evaluator(params, policy, policy, {}, tokenizer).samples(rows)

    free, ended = said(stop_strings=[]), said(min_new_tokens=0, stop_strings=["e"])
    assert any("e" in sample["response"][:-1] for sample in free)
    assert all("e" not in sample["response"][:-1] for sample in ended)
    assert any(sample["response"].endswith("e") and sample["finished"] for sample in ended)
