"""Sampling models on the test prompts, and what reward models and policies make of the responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.common.chunks import work_through
from rlhf_lib.common.rows import JsonObject, read_jsonl
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.evaluation.draws import Draws, Said, dataset
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.evaluation.samples import DATASET, Sample, in_mode, mode_name
from rlhf_lib.generation.decoding import prompts_at_once
from rlhf_lib.models import frozen
from rlhf_lib.models.logprobs import Distribution, sequence_logprobs
from rlhf_lib.models.processes import shared_out
from rlhf_lib.scoring import true_quality
from rlhf_lib.scoring.reward_model import RewardModel, shared


def held_out_rows(path: str | Path, params: EvaluateParams) -> list[JsonObject]:
    """The test rows of `sources`, by id, at most `max_prompts`: ids are hashes, so the first are a fair draw.

    A source is named as in load.sources, or with its subset (`hh` or `hh/helpful-base`). A `ParamsError` for one that
    has no test row.
    """
    rows = sorted(read_jsonl(path), key=lambda row: row["id"])
    known = {name for row in rows for name in _source_names(row)}
    for source in params.sources:
        if source not in known:
            there = ", ".join(sorted(known)) or "none"
            raise ParamsError(f"params.yaml: evaluate.sources: no test row of {source}; sources of test rows: {there}")
    wanted = [row for row in rows if not params.sources or _source_names(row) & {*params.sources}]
    return wanted[: params.max_prompts]


def _source_names(row: JsonObject) -> set[str]:
    return {row["source"], row["source"].partition("/")[0]}


def score(samples: Sequence[Sample], models: Mapping[str, RewardModel]) -> None:
    """Put what each model gives (`reward`, `judge`) under its name into samples and, where every row's source has a
    rule for it, `gold` and `format`.

    A text that stands there several times is scored once.
    """
    texts = {(sample["id"], sample["response"]): (sample["prompt"], sample["response"]) for sample in samples}
    prompts, responses = [prompt for prompt, _ in texts.values()], [text for _, text in texts.values()]
    columns: dict[str, Sequence[Any]] = {
        name: shared(model, f"Scores of {name}")(prompts, responses) for name, model in models.items()
    }
    if true_quality.known(samples):
        columns["gold"] = true_quality.gold(prompts, responses)
        columns["format"] = [true_quality.answer_format(prompt) for prompt in prompts]
    for name, values in columns.items():
        of_text = dict(zip(texts, values, strict=True))
        for sample in samples:
            sample[name] = of_text[sample["id"], sample["response"]]


class Evaluator:
    """What it takes to measure one policy: the policy, the SFT model from which its KL is taken, and reward models by
    the name of their numbers.

    `sft` may be the policy itself: its log-probs are then computed once.
    """

    def __init__(
        self,
        params: EvaluateParams,
        policy: PreTrainedModel,
        sft: PreTrainedModel,
        scorers: Mapping[str, RewardModel],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.params, self.policy, self.sft = params, policy, sft
        self.scorers, self.tokenizer = scorers, tokenizer

    def samples(self, rows: Sequence[JsonObject], file: Path | None = None) -> list[Sample]:
        """The policy's responses to the rows' prompts at every temperature, and the rows' own responses.

        `file` gets them as they come, without rewards; those that a killed run left there are not drawn again. Every
        process must call this.
        """
        params, draws = self.params, self.params.samples_per_prompt
        modes = [
            Draws(self.policy, self.tokenizer, rows, params, temperature, draws, mode_name(temperature))
            for temperature in params.temperatures
        ]

        def work(places: Sequence[int]) -> list[list[Sample]]:
            mine = [rows[place] for place in places]
            said = [response for mode in modes for response in mode(places)]
            said += dataset(self.policy, self.tokenizer, mine)
            return _of_rows(mine, self._measured(said))

        size = prompts_at_once(params.per_device_eval_batch_size, max(mode.draws for mode in modes))
        found = work_through(range(len(rows)), size, work, file, "Evaluation", "prompt")
        every = [sample for of_row in found for sample in of_row]
        samples = [sample for name in (*(mode.mode for mode in modes), DATASET) for sample in in_mode(every, name)]
        score(samples, self.scorers)
        return samples

    def _measured(self, said: Sequence[Said]) -> list[Sample]:
        """The samples with their log-probs."""
        logprobs = self._logprobs(self.policy, said)
        ref_logprobs = logprobs if self.sft is self.policy else self._logprobs(self.sft, said)
        return [
            {**one.sample, "logprob": logprob, "ref_logprob": ref_logprob}
            for one, logprob, ref_logprob in zip(said, logprobs, ref_logprobs, strict=True)
        ]

    def _logprobs(self, model: PreTrainedModel, said: Sequence[Said]) -> list[float]:
        """The log-prob of each response under its distribution."""
        found = [0.0] * len(said)
        # apart where they were drawn from parts of the vocabulary: a batch has these of all its tokens, or of none
        kinds = [(response.distribution, response.response.support is None) for response in said]
        for kind in dict.fromkeys(kinds):
            places, (distribution, _) = [i for i, of_response in enumerate(kinds) if of_response == kind], kind
            measure = partial(self._logprobs_at, model, distribution)
            of_distribution = [said[i] for i in places]
            for i, logprob in zip(places, shared_out(of_distribution, measure), strict=True):
                found[i] = logprob
        return found

    def _logprobs_at(self, model: PreTrainedModel, distribution: Distribution, said: Sequence[Said]) -> list[float]:
        prompts, responses = [one.prompt for one in said], [one.response for one in said]
        size = self.params.per_device_eval_batch_size
        pad_id = self.tokenizer.pad_token_id
        with frozen.autocast(model):
            return sequence_logprobs(
                model, prompts, responses, pad_id, distribution, batch_size=size, progress="Log-probs"
            )


def _of_rows(rows: Sequence[JsonObject], samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples of each row's prompt."""
    found: dict[str, list[Sample]] = {row["id"]: [] for row in rows}
    for sample in samples:
        found[sample["id"]].append(sample)
    return list(found.values())
