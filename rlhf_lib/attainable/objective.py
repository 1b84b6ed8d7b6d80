"""What PPO maximises, of samples; and where its params, or evaluate's, are not those that the theory is about."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import torch

from rlhf_lib.common import left_out, paths
from rlhf_lib.common.policies import METHODS
from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.evaluation.samples import Sample, in_mode, mode_name
from rlhf_lib.models.logprobs import Response
from rlhf_lib.ppo.algos import RunningMoments
from rlhf_lib.ppo.objective import shaped
from rlhf_lib.ppo.params import PPOParams

APPROXIMATE = "PPO learns from more than reward and KL, so that its share of the objective is a rough one"

# the KL is to the SFT model's distribution over the tokens that the policy draws from, whatever they are to SFT
NO_BOUND = "one that draws what the SFT model never does pays no KL for it, and may be better than the estimate"


def spread(samples: Sequence[Sample]) -> float:
    """The standard deviation of the samples' `total`, by which `ppo.scale_rewards` divides."""
    moments = RunningMoments()
    moments.update(torch.tensor([sample["total"] for sample in samples], dtype=torch.float64))
    return moments.std


def put_scores(samples: Sequence[Sample], params: PPOParams, std: float) -> None:
    """Put `score` into samples with a `total`: what PPO learns from, after scaling, clipping and penalties."""
    totals = torch.tensor([sample["total"] for sample in samples], dtype=torch.float64)
    responses = [Response([0] * sample["length"], sample["finished"]) for sample in samples]
    for sample, score in zip(samples, shaped(params, totals, responses, std).tolist(), strict=True):
        sample["score"] = score


def departures(params: PPOParams) -> Iterator[str]:
    """The params under which PPO maximises something other than the mean score less `kl_coef` times the KL to the SFT
    model."""
    if params.kl_target is not None:
        yield f"ppo.kl_target: {params.kl_target:g} moves kl_coef; {APPROXIMATE}"
    if params.kl_clip is not None:
        yield f"ppo.kl_clip: {params.kl_clip:g} clips the KL; {APPROXIMATE}"
    if params.kl_in == "loss":
        yield f"ppo.kl_in: in the loss a token does not answer for the KL of those after it; {APPROXIMATE}"
    elif params.kl_estimator != "k1":
        # k3 has the mean of the KL, but a token's own k3 goes with its log-prob otherwise than its k1
        yield f"ppo.kl_estimator: {params.kl_estimator} in the reward has not the gradient of the KL; {APPROXIMATE}"
    if params.loss_aggregation == "sequence":
        yield f"ppo.loss_aggregation: in sequence a token counts less the longer its response is; {APPROXIMATE}"
    for name, plain in (("gamma", 1), ("entropy_coef", 0), ("ptx_coef", 0)):
        if (value := getattr(params, name)) != plain:
            yield f"ppo.{name}: {value:g} is not {plain}; {APPROXIMATE}"
    for name, whole in (("top_k", 0), ("top_p", 1)):
        if (value := getattr(params, name)) != whole:
            yield f"ppo.{name}: {value:g} leaves out tokens, for each policy others; {NO_BOUND}"


def mode(evaluate: EvaluateParams, params: PPOParams) -> str:
    """The mode of the policies' samples that were drawn as PPO draws; a `ValueError` that says why there is none."""
    pairs = {"max_new_tokens": "response_length", **{name: name for name in ("min_new_tokens", "top_k", "top_p")}}
    for name, of_ppo in pairs.items():
        if (value := getattr(evaluate, name)) != (wanted := getattr(params, of_ppo)):
            raise ValueError(f"evaluate.{name} is {value:g}, ppo.{of_ppo} {wanted:g}; make them equal")
    if evaluate.no_repeat_ngram_size:
        raise ValueError("evaluate.no_repeat_ngram_size is not 0, and PPO has no such bound")
    if set(evaluate.stop_strings) != set(params.stop_strings):
        both = f"evaluate.stop_strings are {evaluate.stop_strings}, ppo.stop_strings {params.stop_strings}"
        raise ValueError(f"{both}; make them equal")
    if params.temperature not in evaluate.temperatures:
        raise ValueError(f"ppo.temperature, {params.temperature:g}, is none of evaluate.temperatures; add it")
    return mode_name(params.temperature)


def compared(evaluate: EvaluateParams, params: PPOParams, prompts: Collection[str]) -> dict[str, list[Sample]]:
    """By trained policy, the samples of these prompts that were drawn as PPO draws; a line where there are none."""
    try:
        wanted = mode(evaluate, params)
    except ValueError as error:
        print(f"attained: no policy is compared with it: {error}")
        return {}
    files = {method: paths.samples(method) for method in METHODS}
    there = {method: file for method, file in files.items() if Path(file).is_file() and not left_out.reason(file)}
    samples = {policy: in_mode(read_jsonl(file), wanted) for policy, file in there.items()}
    return {policy: [sample for sample in drawn if sample["id"] in prompts] for policy, drawn in samples.items()}
