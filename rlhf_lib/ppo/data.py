"""What a PPO run reads: prompts to answer, and SFT rows for the language-model loss beside PPO's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from rlhf_lib.common.fitting import MANY
from rlhf_lib.common.rows import JsonObject
from rlhf_lib.generation.sampling import prompt_room
from rlhf_lib.models.chat import last_tokens, prompt_and_answer, prompt_ids
from rlhf_lib.models.lengths import no_rows, say
from rlhf_lib.models.logprobs import Response
from rlhf_lib.models.seeds import seeded
from rlhf_lib.models.templates import check_rows, of_row

Item = TypeVar("Item")


class Prompts:
    """Rows with a `prompt` (messages) and its token ids; the rows' other columns go to the reward functions."""

    def __init__(self, rows: Sequence[JsonObject], ids: Sequence[list[int]]) -> None:
        self.rows, self.ids = list(rows), list(ids)
        self.names = columns_of(self.rows)

    @classmethod
    def encode(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        rows: Sequence[JsonObject],
        response_length: int,
        context: int | None,
        file: str = "prompts",
    ) -> Prompts:
        """Each prompt is cut at its beginning, but for a BOS token, to leave room for the response; a `ParamsError` if
        there is none, or where the chat template refuses a row of `file`. A line where more than a fifth is cut."""
        check_rows(tokenizer, (row["prompt"] for row in rows), file)
        room = prompt_room(response_length, context, "ppo.response_length")
        whole = []
        for number, row in enumerate(rows, start=1):
            with of_row(file, number):
                whole.append(prompt_ids(tokenizer, row["prompt"]))
        cut = sum(len(ids) > room for ids in whole) if room else 0
        if cut > MANY * len(whole):
            say(
                f"ppo: ppo.response_length, {response_length}, leaves {room} tokens to a prompt: {cut:,} of the "
                f"{len(whole):,} of {file} lose their beginning; the longest has {max(map(len, whole)):,}"
            )
        return cls(rows, [last_tokens(tokenizer, ids, room) for ids in whole])

    def __len__(self) -> int:
        return len(self.rows)

    def pick(self, indices: Sequence[int]) -> Prompts:
        """The prompts at these places."""
        picked = Prompts([self.rows[i] for i in indices], [self.ids[i] for i in indices])
        picked.names = self.names
        return picked

    def columns(self) -> dict[str, list[Any]]:
        """The rows' columns but the prompt; None where a row lacks one that others have."""
        return {name: [row.get(name) for row in self.rows] for name in self.names}


def columns_of(rows: Iterable[JsonObject]) -> list[str]:
    """The columns that any of the rows has, but the prompt."""
    return list(dict.fromkeys(name for row in rows for name in row if name != "prompt"))


def walk(total: int, size: int, index: int, seed: int) -> list[int]:
    """Step `index` of a walk through shuffled passes over `total` rows, `size` rows a step.

    A function of its arguments alone: a resumed run continues as the killed one would have.
    """
    first, last = index * size, (index + 1) * size
    passes = range(first // total, (last - 1) // total + 1)
    rows = [
        row for number in passes for row in torch.randperm(total, generator=seeded("prompts", seed, number)).tolist()
    ]
    return rows[first % total : first % total + size]


class Completions:
    """SFT rows as prompts and responses of token ids, for PPO-ptx [Ouyang 2022, arXiv:2203.02155, section 3.5]."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, rows: Sequence[JsonObject], context: int | None, file: str = "rows"
    ) -> None:
        if not rows:
            raise no_rows(file)
        check_rows(tokenizer, (row["prompt"] for row in rows), file)
        self.rows = [_completion(tokenizer, row, context) for row in rows]

    def draw(self, count: int, *seeds: int) -> list[tuple[list[int], Response]]:
        """`count` rows, drawn with replacement, shortest first; the same for the same seeds."""
        drawn = torch.randint(len(self.rows), (count,), generator=seeded("ptx", *seeds)).tolist()
        return sorted((self.rows[i] for i in drawn), key=lambda row: len(row[0]) + len(row[1].ids))


def _completion(tokenizer: PreTrainedTokenizerBase, row: JsonObject, context: int | None) -> tuple[list[int], Response]:
    """Prompt and response of an SFT row, cut at the end to the context."""
    prompt, answer, _ = prompt_and_answer(tokenizer, row["prompt"], row["completion"][0]["content"], context)
    return prompt, Response(answer, True)
