"""Scores are computed in fp32 where the trunk is not."""

import pytest
import torch
from encoders import PROMPTS, save_encoder
from reward_trainers import build, load, params
from trl_trainers import CHOSEN

from rlhf_lib.models import hardware
from rlhf_lib.models.heads import Fp32Linear
from rlhf_lib.scoring.reward_model import encode, has_segments, padded, raw_scores
from rlhf_lib.training import weights


def watched(head):
    """A list, filled with what the head reads, in fp32, and what it gives."""
    seen = []

    def keep(module, inputs, output):
        seen.append((inputs[0].float(), output))

    head.register_forward_hook(keep)
    return seen


@pytest.mark.parametrize(
    ("kind", "adapters"),
    [("policy", {}), ("policy", {"lora_r": 4}), ("bert", {}), ("bert", {"lora_r": 4}), ("roberta", {})],
)
def test_scores_and_the_gradient_of_the_head_are_computed_in_fp32_under_bf16(compute, tiny, tmp_path, kind, adapters):
    compute(precision="bf16")
    base = tiny.policy if kind == "policy" else save_encoder(tmp_path / kind, kind)
    scorer = load(base, max_length=24)
    model = weights.choose("reward", scorer.model, params(base, **adapters), "SEQ_CLS")
    (head,) = (part for part in model.modules() if isinstance(part, Fp32Linear) and part.weight.requires_grad)
    seen, segments = watched(head), has_segments(scorer.model)
    rows = [encode(scorer.tokenizer, *row, scorer.limit, segments) for row in zip(PROMPTS, CHOSEN, strict=True)]
    with hardware.autocast():
        scores = raw_scores(model, padded(rows, scorer.pad_id), None)
    ((hidden, output),) = seen
    assert scores.dtype == output.dtype == torch.float32 and not scores.equal(scores.bfloat16().float())
    expected = hidden @ head.weight.T + (0.0 if head.bias is None else head.bias)
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-6)
    output.sum().backward()
    torch.testing.assert_close(head.weight.grad[0], hidden.flatten(0, -2).sum(0), atol=1e-5, rtol=1e-5)


def test_a_run_under_bf16_learns_from_scores_in_fp32(compute, tiny, splits, checkpoints):
    compute(precision="bf16")
    trainer = build(tiny.policy, checkpoints, max_steps=1)
    seen, before = watched(trainer.model.score), trainer.model.score.weight.detach().clone()
    trainer.train()
    assert {output.dtype for _, output in seen} == {torch.float32}
    assert not trainer.model.score.weight.equal(before)
