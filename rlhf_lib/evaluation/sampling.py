"""Sampling models on the test prompts, and what reward models and policies make of the responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.common.rows import JsonObject, read_jsonl
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.evaluation.samples import DATASET, Sample, mode_name
from rlhf_lib.generation.decoding import generate
from rlhf_lib.generation.sampling import Sampling, encode_prompts, random_numbers, response_text
from rlhf_lib.models import frozen
from rlhf_lib.models.chat import prompt_and_answer
from rlhf_lib.models.loading import context_length
from rlhf_lib.models.logprobs import Distribution, Response, sequence_logprobs
from rlhf_lib.models.processes import is_main, shared_out
from rlhf_lib.models.stops import stop_ids, up_to_stop
from rlhf_lib.scoring import true_quality
from rlhf_lib.scoring.reward_model import RewardModel, shared


class Said(NamedTuple):
    """A response in the making: the sample so far, its tokens, and the distribution of which its log-probs are."""

    sample: Sample
    prompt: list[int]
    response: Response
    distribution: Distribution


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


def decoding(params: EvaluateParams, temperature: float) -> Sampling:
    """How answers are made at one of the temperatures."""
    return Sampling(
        params.max_new_tokens,
        temperature,
        stop_strings=tuple(params.stop_strings),
        top_k=params.top_k,
        top_p=params.top_p,
        min_new_tokens=params.min_new_tokens,
        no_repeat_ngram_size=params.no_repeat_ngram_size,
        num_beams=params.num_beams,
    )


def draw(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[JsonObject],
    params: EvaluateParams,
    temperature: float,
    draws: int,
    mode: str,
    *purpose: int,
    length_param: str = "evaluate.max_new_tokens",
) -> list[Said]:
    """`draws` responses of a model to each row's prompt; one where it is greedy.

    Every policy and temperature draws with the same random numbers; another `purpose` has its own. length_param: what
    `params.max_new_tokens` is called in params.yaml.
    """
    drawn = [(row, number) for row in rows for number in range(draws if temperature > 0 else 1)]
    length, context = params.max_new_tokens, context_length(model)
    messages = [row["prompt"] for row, _ in drawn]
    prompts = encode_prompts(tokenizer, messages, length, context, length_param)
    sampling = decoding(params, temperature)
    # greedy answers are measured at temperature 1
    distribution = Distribution(temperature or 1.0, params.min_new_tokens, stop_ids(model))
    noise = random_numbers(len(prompts), sampling, params.seed, *purpose)
    size = params.per_device_eval_batch_size
    progress = f"Sampling {mode}" if is_main() else None

    def respond(rows: list[int]) -> list[Response]:
        mine = [prompts[i] for i in rows]
        with frozen.autocast(model):
            return generate(model, tokenizer, mine, sampling, noise[rows], size, progress)

    responses = shared_out(range(len(prompts)), respond)
    return [
        Said(_sample(row, mode, number, response_text(tokenizer, response), response), prompt, response, distribution)
        for (row, number), prompt, response in zip(drawn, prompts, responses, strict=True)
    ]


def _sample(row: JsonObject, mode: str, number: int, text: str, response: Response) -> Sample:
    return {
        "id": row["id"],
        "source": row["source"],
        "mode": mode,
        "draw": number,
        "prompt": row["prompt"],
        "response": text,
        "length": len(response.ids),
        "finished": response.finished,
    }


def dataset(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[JsonObject]) -> list[Said]:
    """The rows' own responses, up to the token with which the model would have stopped; rows may have none.

    Dialogues lose their end where they are longer than the model's context.
    """
    said, context, stops = [], context_length(model), stop_ids(model)
    for row in rows:
        responses = row.get("responses", [])
        scores = [response["score"] for response in responses]
        known = [score for score in scores if score is not None]
        best = scores.index(max(known)) if known else 0
        for number, (score, content) in enumerate(zip(scores, (r["content"] for r in responses), strict=True)):
            prompt, answer, _ = prompt_and_answer(tokenizer, row["prompt"], content, context)
            ids, stopped = up_to_stop(answer, stops)
            response = Response(ids, stopped, stopped=stopped)
            sample = _sample(row, DATASET, number, content, response)
            sample |= {"score": score, "chosen": number == best}
            said.append(Said(sample, prompt, response, Distribution(stop_ids=stops)))
    return said


def score(samples: Sequence[Sample], models: Mapping[str, RewardModel]) -> None:
    """Put what each model gives (`reward`, `judge`) under its name into samples and, where every row's source has a
    rule for it, `gold` and `format`.

    A text that stands there several times is scored once.
    """
    texts = {(sample["id"], sample["response"]): (sample["prompt"], sample["response"]) for sample in samples}
    prompts, responses = [prompt for prompt, _ in texts.values()], [text for _, text in texts.values()]
    columns: dict[str, Sequence[Any]] = {
        name: shared(model, f"Scoring by {name}")(prompts, responses) for name, model in models.items()
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

    def samples(self, rows: Sequence[JsonObject]) -> list[Sample]:
        """The policy's responses to the rows' prompts at every temperature, and the rows' own responses."""
        params, draws = self.params, self.params.samples_per_prompt
        said = [
            response
            for temperature in params.temperatures
            for response in draw(self.policy, self.tokenizer, rows, params, temperature, draws, mode_name(temperature))
        ]
        said += dataset(self.policy, self.tokenizer, rows)
        logprobs = self._logprobs(self.policy, said, "Log-probs")
        is_sft = self.sft is self.policy
        ref_logprobs = logprobs if is_sft else self._logprobs(self.sft, said, "Log-probs of SFT")
        samples = [response.sample for response in said]
        for sample, logprob, ref_logprob in zip(samples, logprobs, ref_logprobs, strict=True):
            sample |= {"logprob": logprob, "ref_logprob": ref_logprob}
        score(samples, self.scorers)
        return samples

    def _logprobs(self, model: PreTrainedModel, said: Sequence[Said], progress: str) -> list[float]:
        """The log-prob of each response under its distribution; `progress` names the bars."""
        found = [0.0] * len(said)
        # apart where they were drawn from parts of the vocabulary: a batch has these of all its tokens, or of none
        kinds = [(response.distribution, response.response.support is None) for response in said]
        for kind in dict.fromkeys(kinds):
            places, (distribution, _) = [i for i, of_response in enumerate(kinds) if of_response == kind], kind
            measure = partial(self._logprobs_at, model, distribution, progress)
            of_distribution = [said[i] for i in places]
            for i, logprob in zip(places, shared_out(of_distribution, measure), strict=True):
                found[i] = logprob
        return found

    def _logprobs_at(
        self, model: PreTrainedModel, distribution: Distribution, progress: str, said: Sequence[Said]
    ) -> list[float]:
        prompts, responses = [one.prompt for one in said], [one.response for one in said]
        size = self.params.per_device_eval_batch_size
        pad_id = self.tokenizer.pad_token_id
        with frozen.autocast(model):
            return sequence_logprobs(
                model, prompts, responses, pad_id, distribution, batch_size=size, progress=progress
            )
