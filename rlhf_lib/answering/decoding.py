"""How answers are decoded: the options of transformers' GenerationConfig by their own names, checked before a model is
loaded.

An option that is not given has no effect, whatever the model's own generation config says: of that, only the tokens
that end an answer are kept. So the same command means the same for every model.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import yaml

from rlhf_lib.common.schema import (
    Above,
    AtLeast,
    AtMost,
    Below,
    Copies,
    Fraction,
    NewTokens,
    NotEmpty,
    NotNegative,
    Positive,
    Share,
    StopStrings,
    Whole,
    examine,
)
from rlhf_lib.common.yaml import ParamsError, parse_value

Beams = Annotated[int, AtLeast(1), AtMost(1000)]
Within = Annotated[float, Above(0), Below(1)]
Tokens = Annotated[list[Whole], NotEmpty()]

_GREEDY = {"temperature": 1.0, "top_p": 1.0, "typical_p": 1.0}  # values that leave greedy answers greedy
_BOOLEANS = {"true": True, "false": False}
SAMPLES = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
OF_BEAMS = ("length_penalty", "early_stopping")
ENDS = "give --max_new_tokens or --min_new_tokens: "
COUNTS_PROMPT = f"{ENDS}it counts the prompt, and in a batch its padding"
CODE = "transformers takes it from code on the hub, which is never run here"
HELPER = "it needs a second model or the parts of one; answers would be the same"


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """The options that were given; None: not given."""

    max_new_tokens: NewTokens | None = None
    min_new_tokens: Whole | None = None
    stop_strings: Annotated[StopStrings, NotEmpty()] | None = None
    max_time: Positive | None = None
    do_sample: bool | None = None
    temperature: NotNegative | None = None
    top_k: Whole | None = None
    top_p: Share | None = None
    min_p: Fraction | None = None
    top_h: Share | None = None
    typical_p: Share | None = None
    epsilon_cutoff: Within | None = None
    eta_cutoff: Within | None = None
    num_beams: Beams | None = None
    length_penalty: Annotated[float, AtLeast(-100), AtMost(100)] | None = None
    early_stopping: Literal["true", "false", "never"] | None = None
    num_return_sequences: Copies | None = None
    repetition_penalty: Positive | None = None
    no_repeat_ngram_size: Whole | None = None
    encoder_repetition_penalty: Positive | None = None
    encoder_no_repeat_ngram_size: Whole | None = None
    bad_words_ids: Annotated[list[Tokens], NotEmpty()] | None = None
    suppress_tokens: Tokens | None = None
    begin_suppress_tokens: Tokens | None = None
    forced_eos_token_id: Tokens | None = None
    exponential_decay_length_penalty: list[float] | None = None
    renormalize_logits: bool | None = None
    remove_invalid_values: bool | None = None

    # options of GenerationConfig that look as if they belonged here
    unserved = MappingProxyType(
        {
            "max_length": COUNTS_PROMPT,
            "min_length": COUNTS_PROMPT,
            "eos_token_id": "what ends an answer is the model's own; texts that do: --stop_strings",
            **dict.fromkeys(("penalty_alpha", "dola_layers", "constraints", "force_words_ids"), CODE),
            **dict.fromkeys(("num_beam_groups", "diversity_penalty"), CODE),
            **dict.fromkeys(("prompt_lookup_num_tokens", "assistant_early_exit", "num_assistant_tokens"), HELPER),
            "guidance_scale": "it needs a second prompt for each",
            "use_cache": "answers would be the same, and slower",
        }
    )

    def __post_init__(self) -> None:
        if self.temperature == 0 and self.do_sample:
            raise ValueError("temperature: 0 is greedy; leave --do_sample out, or raise it")
        if not self.samples:
            for name in SAMPLES:
                if self.given(name) and not (name == "temperature" and self.temperature == 0):
                    way_out = "raise --temperature" if self.temperature == 0 else "leave out --do_sample false"
                    raise ValueError(f"{name}: it is of sampling, and these answers are not sampled; {way_out}")
        beams, copies = self.num_beams or 1, self.num_return_sequences or 1
        for name in OF_BEAMS:
            if getattr(self, name) is not None and beams == 1:
                raise ValueError(f"{name}: it is of beams; give --num_beams above 1")
        if copies > beams > 1:
            raise ValueError(f"num_return_sequences: at most num_beams, which is {beams}, got {copies}")
        if copies > beams and not self.samples:
            raise ValueError(f"num_return_sequences: {copies} answers are all the same; sample, or give as many beams")
        decay = self.exponential_decay_length_penalty
        if decay is not None and (len(decay) != 2 or decay[0] != int(decay[0]) or min(decay) < 0 or decay[1] == 0):
            raise ValueError(f"exponential_decay_length_penalty: a whole number of tokens and a factor, got {decay}")

    def given(self, name: str) -> bool:
        """Whether an option was given with a value that changes greedy answers."""
        value = getattr(self, name)
        return value is not None and value != _GREEDY.get(name, 0)

    @property
    def samples(self) -> bool:
        """Whether answers are sampled."""
        if self.do_sample is not None or self.temperature == 0:
            return bool(self.do_sample)
        return any(getattr(self, name) is not None for name in SAMPLES)

    @property
    def copies(self) -> int:
        """Answers to each prompt."""
        return self.num_return_sequences or 1

    @property
    def rows(self) -> int:
        """Rows that a prompt takes in a forward pass."""
        return max(self.num_beams or 1, self.copies)

    def check_ids(self, vocabulary: int) -> None:
        """A `ParamsError` for an id that no token of a model with so many has."""
        for name in ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id"):
            for item in getattr(self, name) or ():
                if (largest := max(item) if isinstance(item, list) else item) >= vocabulary:
                    raise ParamsError(f"--{name}: {largest}: the model's tokens are 0 to {vocabulary - 1}")

    def options(self) -> dict[str, Any]:
        """What `generate()` gets, without the lengths' defaults."""
        found = {f.name: value for f in dataclasses.fields(self) if (value := getattr(self, f.name)) is not None}
        if not self.samples:
            found = {name: value for name, value in found.items() if name not in SAMPLES}
        if self.early_stopping in _BOOLEANS:
            found["early_stopping"] = _BOOLEANS[self.early_stopping]
        if self.exponential_decay_length_penalty is not None:
            start, factor = self.exponential_decay_length_penalty
            found["exponential_decay_length_penalty"] = (int(start), factor)
        # transformers samples from the 50 likeliest where nothing is said
        return {**({"top_k": 0} if self.samples else {}), **found, "do_sample": self.samples}


HELP = {
    "max_new_tokens": "longest answer in tokens; as evaluate.max_new_tokens in params.yaml",
    "min_new_tokens": "shortest answer in tokens",
    "stop_strings": "texts that end an answer, a list: '[\"\\n\", END]'",
    "max_time": "seconds after which the answers of a batch are cut off",
    "do_sample": "sample; true if an option of sampling is given, else false: greedy, or beams",
    "temperature": "of sampling; 0: greedy",
    "top_k": "sample from so many likeliest tokens; 0 and not given: from all",
    "top_p": "sample from the likeliest tokens that together have this probability",
    "min_p": "least probability, as a share of the likeliest's",
    "top_h": "sample from tokens up to this share of the entropy",
    "typical_p": "sample from the most typical tokens that together have this probability",
    "epsilon_cutoff": "least probability of a token",
    "eta_cutoff": "the same, less where the entropy is high",
    "num_beams": "beams; with sampling, each is sampled",
    "length_penalty": "of beams: above 0 for longer answers",
    "early_stopping": "of beams: stop at num_beams whole ones; true, false, never",
    "num_return_sequences": "answers to each prompt",
    "repetition_penalty": "divides the logits of tokens that prompt or answer have",
    "no_repeat_ngram_size": "no run of so many tokens twice in prompt and answer",
    "encoder_repetition_penalty": "above 1: favours the prompt's tokens",
    "encoder_no_repeat_ngram_size": "no run of so many tokens of the prompt in the answer",
    "bad_words_ids": "runs of token ids that no answer has: [[5], [7, 8]]",
    "suppress_tokens": "token ids that no answer has, a list",
    "begin_suppress_tokens": "token ids that no answer begins with, a list",
    "forced_eos_token_id": "token ids one of which stands at max_new_tokens, a list",
    "exponential_decay_length_penalty": "[tokens, factor]: from there on, ends are favoured",
    "renormalize_logits": "normalise log-probs again before beams are compared",
    "remove_invalid_values": "NaN and infinities out of the logits",
}


def read(given: Mapping[str, str], default_max_new_tokens: int) -> Decoding:
    """The options of a command line, whose values are YAML; a `ParamsError` of one line for what cannot be."""
    values = {}
    for name, text in given.items():
        try:
            values[name] = parse_value(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise ParamsError(f"--{name}: cannot be read as a number, a word or a list: {text[:200]!r}") from None
    if isinstance(early := values.get("early_stopping"), bool):
        values["early_stopping"] = str(early).lower()
    if isinstance(values.get("stop_strings"), str):
        values["stop_strings"] = [values["stop_strings"]]
    if isinstance(values.get("forced_eos_token_id"), int):
        values["forced_eos_token_id"] = [values["forced_eos_token_id"]]
    values = {"max_new_tokens": default_max_new_tokens, **values}
    found = examine(Decoding, values, "decoding", Path("options"))
    if isinstance(found, list):
        raise ParamsError(found[0].replace("options: decoding.", "--", 1).replace("decoding.", "--"))
    if found.min_new_tokens and found.max_new_tokens and found.min_new_tokens >= found.max_new_tokens:
        raise ParamsError(f"--min_new_tokens: must be below max_new_tokens ({found.max_new_tokens})")
    return found


def unknown(name: str, others: Sequence[str]) -> str:
    """What to say of an option that there is not, where `others` are those of the command itself."""
    if told := Decoding.unserved.get(name):
        return f"--{name}: not taken: {told}"
    near = difflib.get_close_matches(name[:100], [*HELP, *others], n=3, cutoff=0.5)
    way_out = f"did you mean {' or '.join(f'--{one}' for one in near)}?" if near else "--help lists them"
    return f"--{name[:100]}: no such option; {way_out}"
