"""PPO waits for whatever ends a turn, and hands that on with the policy."""

from functools import partial

import pytest
from taught_standins import OVER, leaning

from rlhf_lib.models import loading as models
from rlhf_lib.models.stops import stop_ids
from rlhf_lib.training import weights


@pytest.fixture(scope="module")
def over(tmp_path_factory):
    """The directory of a policy whose turns end with a token that is neither EOS nor special."""
    return leaning(tmp_path_factory.mktemp("over"))


def nothing(prompts, completions, **columns):
    assert not any(OVER in text for text in completions)
    return [0.0] * len(completions)


@pytest.mark.parametrize("adapters", [{}, {"lora_r": 2}], ids=["whole", "LoRA"])
def test_ppo_goes_by_the_ends_of_turns(build, over, adapters, tmp_path):
    changes = {"rollout_batch_size": 32, "missing_eos_penalty": 3.0, "min_new_tokens": 2, **adapters}
    trainer = build(policy=over, functions={"none": nothing}, **changes)
    end = trainer.processing_class.convert_tokens_to_ids(OVER)
    stops = stop_ids(models.load_policy(over))
    assert trainer.distribution.stop_ids == stops == tuple(sorted([end, trainer.processing_class.eos_token_id]))
    rollout = trainer.sample(0)
    ended = [response.ids[-1] in stops for response in rollout.responses]
    assert {True, False} == set(ended) and all(len(response.ids) > 2 for response in rollout.responses)
    assert sum(response.ids[-1] == end for response in rollout.responses) > 3
    assert rollout.scores.tolist() == [0.0 if one else -3.0 for one in ended]
    trainer.score(rollout, trainer._minibatches(rollout, 0, 0))
    assert trainer.measures.rollout["eos_rate"] == sum(ended) / 32
    assert trainer.measures.rollout["kl"] == 0.0
    load = partial(models.load_policy, over)
    weights.save("ppo", trainer.model.policy, trainer.processing_class, tmp_path / "ppo", load)
    written = (tmp_path / "ppo" / "generation_config.json").read_bytes()
    assert written == (over / "generation_config.json").read_bytes()


def test_evaluation_counts_them_too(build, over):
    trainer = build(policy=over, functions={"none": nothing}, response_length=16)
    answers = trainer.sampler.measure(trainer.eval_prompts, trainer.sampling, trainer.distribution)
    rate, stops = answers.means()["eos_rate"], trainer.distribution.stop_ids
    assert rate == sum(response.ids[-1] in stops for response in answers.responses) / 3
    assert rate > 0 and not any(OVER in row["completion"] for row in answers.rows())
