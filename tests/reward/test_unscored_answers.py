"""Test prompts whose answers have no score, beside others."""

from rlhf_lib.reward.scores import scored_responses


def test_only_answers_with_a_score_are_compared_with_the_rewards():
    def answers(*scores):
        return [{"content": f"{score}", "score": score, "target": score} for score in scores]

    asked = []

    def score(prompts, completions):
        asked.extend(completions)
        return [float(len(text)) for text in completions]

    prompt = [{"role": "user", "content": "Q?"}]
    rows = [
        {"id": "a", "source": "s", "prompt": prompt, "responses": answers(None, 2.0)},
        {"id": "b", "source": "s", "prompt": prompt, "responses": answers(None)},
        {"id": "c", "source": "s", "prompt": prompt, "responses": []},
    ]
    (found,) = scored_responses(rows, score)
    assert asked == ["2.0"]
    assert (found["id"], found["response"], found["score"], found["reward"]) == ("a", 1, 2.0, 3.0)
