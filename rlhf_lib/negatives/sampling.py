"""More training pairs: answers sampled from a model, as rejected ones beside the best answer that a prompt has.

What needs torch is imported inside the functions: without negatives, nothing does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlhf_lib.common.chunks import chunks, work_through
from rlhf_lib.common.rows import JsonObject, Message, clean_text, is_blank, read_values
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.negatives.params import NegativesParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COUNTS = ("prompts", "added", "known", "blank", "repeated", "cut")


class Sample(NamedTuple):
    """An answer, its length in tokens with the one that stops, and whether `max_new_tokens` came before that."""

    text: str
    tokens: int
    cut: bool


def prompts(paths: Iterable[Path]) -> dict[str, list[Message]]:
    """The prompts of the pairs in JSON Lines files by row id, each once, in the order of the files."""
    return {row_id(pair): pair["prompt"] for path in paths for pair in read_values(path)}


def row_id(pair: JsonObject) -> str:
    """The id that the pairs of a prompt share: theirs are <row id>-<number>."""
    return pair["id"].rpartition("-")[0]


def extend(
    pairs: Iterable[JsonObject], samples: Mapping[str, Sequence[Sample]], counts: Counter[str]
) -> Iterator[JsonObject]:
    """The pairs, and after those of each prompt the ones that its samples give; `counts` gets what `summary` tells."""
    for key, of_prompt in groupby(pairs, key=row_id):
        human = list(of_prompt)
        counts["prompts"] += 1
        yield from human
        yield from _added(key, human, samples[key], counts)


def _added(
    key: str, human: Sequence[JsonObject], samples: Sequence[Sample], counts: Counter[str]
) -> Iterator[JsonObject]:
    best = max(human, key=lambda pair: pair["score_chosen"])
    known = {clean_text(pair[side][0]["content"]) for pair in human for side in ("chosen", "rejected")}
    texts: set[str] = set()
    for number, (text, tokens, cut) in enumerate(samples):
        if is_blank(text):
            counts["blank"] += 1
        elif text in known:
            counts["known"] += 1
        elif text in texts:
            counts["repeated"] += 1
        else:
            texts.add(text)
            counts.update(added=1, cut=cut, tokens=tokens)
            rejected = [{"role": "assistant", "content": text}]
            yield {**best, "id": f"{key}-n{number}", "rejected": rejected, "score_rejected": None}


def summary(counts: Counter[str]) -> dict[str, float]:
    """Of one file: its prompts, the answers added and those left out; of the added, how many were cut, and their mean
    length in tokens."""
    return {**{key: counts[key] for key in COUNTS}, "mean_tokens": counts["tokens"] / max(counts["added"], 1)}


def sample(
    params: NegativesParams, prompts: Mapping[str, list[Message]], file: Path, splits: Iterable[Path] = ()
) -> dict[str, list[Sample]]:
    """`num_negatives` answers to each prompt, by row id; which ones depends on the prompt, its id and `seed` alone.

    `file` gets the answers as they come. Those that a killed run with the same arguments left there are kept. `splits`
    are the files of the prompts: what the model's template refuses is told by file and row before anything is sampled.
    """
    from rlhf_lib.generation.decoding import prompts_at_once
    from rlhf_lib.models.templates import check_file

    model, tokenizer = load_model(params)
    for split in splits:
        check_file(split, tokenizer)
    size = prompts_at_once(params.per_device_eval_batch_size, params.num_negatives)
    draw = partial(_draw, params, model, tokenizer)
    drawn = work_through([*prompts.items()], size, draw, file, "Sampling negatives", "prompt")
    return {key: [Sample(*sample) for sample in of_prompt] for key, of_prompt in zip(prompts, drawn, strict=True)}


def _draw(
    params: NegativesParams,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[str, list[Message]]],
) -> list[list[Sample]]:
    """Those of each prompt, which has an id."""
    import torch

    from rlhf_lib.generation.decoding import generate
    from rlhf_lib.generation.sampling import Sampling, encode_prompts, response_text
    from rlhf_lib.models import frozen
    from rlhf_lib.models import loading as models
    from rlhf_lib.models.seeds import seeded

    draws, length = params.num_negatives, params.max_new_tokens
    context = models.context_length(model)
    encoded = encode_prompts(tokenizer, [prompt for _, prompt in prompts], length, context, "negatives.max_new_tokens")
    noise = [torch.rand(draws, length, generator=seeded("negatives", params.seed, key)) for key, _ in prompts]
    with frozen.autocast(model):
        responses = generate(
            model,
            tokenizer,
            [ids for ids in encoded for _ in range(draws)],
            Sampling(length, params.temperature, params.top_k, params.top_p),
            torch.cat(noise),
            params.per_device_eval_batch_size,
        )
    samples = (Sample(clean_text(response_text(tokenizer, r)), len(r.ids), not r.finished) for r in responses)
    return list(chunks(samples, draws))


def load_model(params: NegativesParams) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that answers, on its device, and its tokenizer; a `ParamsError` when there is none that can chat."""
    from rlhf_lib.models import frozen, hardware
    from rlhf_lib.models import loading as models
    from rlhf_lib.models.stops import NeverEnds, set_ends

    name, revision = params.name_and_revision
    where = f"{PARAMS_FILE}: negatives.model_name_or_path: {params.model_name_or_path}"
    must_be = "it must be a causal language model with config.json, safetensors and tokenizer"
    with models.explaining(f"{where} cannot be loaded", name, revision, "name models/sft or models/base", must_be):
        model, tokenizer = models.fetch_causal(name, revision)
    if tokenizer.chat_template is None or tokenizer.eos_token is None:
        raise ParamsError(f"{where}: its tokenizer has no chat template or no EOS token; name a model that can chat")
    try:
        set_ends(model, tokenizer)
    except NeverEnds as fault:
        raise ParamsError(f"{where}: {fault}") from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # masks are made from lengths, so that any token will do
    models.run_fast(model)
    frozen.hold(model, hardware.frozen_dtype())
    model = model.to(hardware.device()).eval()
    return model, tokenizer
