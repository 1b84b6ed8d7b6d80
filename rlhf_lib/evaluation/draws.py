"""A model's answers to the test prompts, and those that the test rows bring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.common.chunks import chunks, work_through
from rlhf_lib.common.rows import JsonObject
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.evaluation.samples import DATASET, Sample
from rlhf_lib.generation.decoding import generate, prompts_at_once
from rlhf_lib.generation.sampling import Sampling, encode_prompts, random_numbers, response_text
from rlhf_lib.models import frozen
from rlhf_lib.models.chat import prompt_and_answer
from rlhf_lib.models.loading import context_length
from rlhf_lib.models.logprobs import Distribution, Response
from rlhf_lib.models.processes import shared_out
from rlhf_lib.models.stops import stop_ids, up_to_stop


class Said(NamedTuple):
    """A response in the making: the sample so far, its tokens, and the distribution of which its log-probs are."""

    sample: Sample
    prompt: list[int]
    response: Response
    distribution: Distribution


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


class Draws:
    """`draws` responses of a model to each row's prompt; one where it is greedy.

    Every policy and temperature draws with the same random numbers; another `purpose` has its own. length_param: what
    `params.max_new_tokens` is called in params.yaml.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[JsonObject],
        params: EvaluateParams,
        temperature: float,
        draws: int,
        mode: str,
        *purpose: int,
        length_param: str = "evaluate.max_new_tokens",
    ) -> None:
        self.model, self.tokenizer, self.rows, self.mode = model, tokenizer, rows, mode
        self.draws, self.batch_size = draws if temperature > 0 else 1, params.per_device_eval_batch_size
        messages, length = [row["prompt"] for row in rows], params.max_new_tokens
        self.prompts = encode_prompts(tokenizer, messages, length, context_length(model), length_param)
        self.sampling = decoding(params, temperature)
        self.noise = random_numbers(len(rows) * self.draws, self.sampling, params.seed, *purpose)
        # greedy answers are measured at temperature 1
        self.distribution = Distribution(temperature or 1.0, params.min_new_tokens, stop_ids(model))

    def __call__(self, places: Sequence[int]) -> list[Said]:
        """Those to the prompts of some rows, by their places. Every process must call this."""
        drawn = [(place, number) for place in places for number in range(self.draws)]

        def respond(mine: list[tuple[int, int]]) -> list[Response]:
            prompts = [self.prompts[place] for place, _ in mine]
            noise = self.noise[[place * self.draws + number for place, number in mine]]
            with frozen.autocast(self.model):
                return generate(
                    self.model, self.tokenizer, prompts, self.sampling, noise, self.batch_size, f"Sampling {self.mode}"
                )

        return [
            Said(
                _sample(self.rows[place], self.mode, number, response_text(self.tokenizer, response), response),
                self.prompts[place],
                response,
                self.distribution,
            )
            for (place, number), response in zip(drawn, shared_out(drawn, respond), strict=True)
        ]

    def samples(self, file: Path | None = None) -> list[Sample]:
        """All of them. `file` gets them as they come; those that a killed run left there are not drawn again."""

        def work(places: Sequence[int]) -> list[list[Sample]]:
            return list(chunks((said.sample for said in self(places)), self.draws))

        size = prompts_at_once(self.batch_size, self.draws)
        found = work_through(range(len(self.rows)), size, work, file, "Answers", "prompt")
        return [sample for of_row in found for sample in of_row]


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
