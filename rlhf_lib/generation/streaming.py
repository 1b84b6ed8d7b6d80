"""An answer that is shown while it is made, by transformers' `generate()`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextStreamer

from rlhf_lib.generation.library import configured
from rlhf_lib.generation.sampling import response_text
from rlhf_lib.models.chat import opening_ids
from rlhf_lib.models.logprobs import Response
from rlhf_lib.models.stops import stop_ids, up_to_stop


class _Streamer(TextStreamer):
    """Gives the text of an answer to `show`, piece by piece, and whether it is the last; but no token that stops, nor
    those with which a template opens an answer."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: tuple[int, ...], show: Callable[[str, bool], None]
    ) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self.stops, self.show, self.opening = stops, show, list(opening_ids(tokenizer))

    def put(self, value: torch.Tensor) -> None:
        if self.next_tokens_are_prompt:
            super().put(value)
        elif self.opening and value.item() == self.opening[0]:
            self.opening.pop(0)
        elif value.item() not in self.stops:
            self.opening = []
            super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.show(text, stream_end)


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[int],
    temperature: float,
    max_new_tokens: int,
    show: Callable[[str, bool], None],
) -> str:
    """The answer to a prompt, whose pieces `show` gets as they come, each with whether it is the last.

    temperature: 0 is greedy.
    """
    ids, stops = torch.tensor([prompt], device=model.device), stop_ids(model)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    with configured(model, tokenizer, max_new_tokens=max_new_tokens, **({"do_sample": False} | sampling)):
        output = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), streamer=_Streamer(tokenizer, stops, show)
        )
    answer, stopped = up_to_stop(output[0, ids.size(1) :].tolist(), stops)
    return response_text(tokenizer, Response(answer, stopped, stopped=stopped))
