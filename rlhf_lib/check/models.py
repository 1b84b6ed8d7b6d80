"""What the models and tokenizers at hand can do: this imports torch, and builds models without weights."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from rlhf_lib.check import together
from rlhf_lib.check.at_hand import folder
from rlhf_lib.check.together import START
from rlhf_lib.common.hub import one_line
from rlhf_lib.common.policies import POLICIES
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import classifiers, directory, templates
from rlhf_lib.models.bounded import Unruly
from rlhf_lib.models.loading import attention_fault, context_of
from rlhf_lib.models.stops import NeverEnds, answer_ends
from rlhf_lib.plan.shapes import base_config
from rlhf_lib.training import weights

# what a tokenizer must give back where there are no rows of the user
TEXTS = ("Name the capital of France, please.", "1 + 2 = 3 (that's right!)", "def f(x):\n    return x * 2")
LOST = 0.2  # of the texts; in a few, a sign that is not in the vocabulary


def faults(sections: Mapping[str, Any], texts: Sequence[str] = ()) -> Iterator[str]:
    """Every fault of the models and tokenizers at hand, `section.key: ...`; `texts`: some of the user's rows."""
    logging.set_verbosity_error()
    texts = texts or TEXTS
    base = sections.get("base")
    config = None
    if base is not None and (told := _broken(base.model_name_or_path)):
        yield f"base.model_name_or_path: {told}"
        return
    if base is not None and base.model_name_or_path is not None:
        yield from _tokenizer("base.model_name_or_path", base.model_name_or_path, base.model_revision, texts)
    if base is not None and (base.model_name_or_path is None or folder(base.model_name_or_path, base.model_revision)):
        try:
            config = base_config(base)
        except ParamsError as fault:
            yield str(fault).removeprefix("params.yaml: ")
    if config is not None and not _is_policy(config):
        yield f"base.model_name_or_path: a {config.model_type} is no causal language model; name one that is"
        config = None
    if config is not None:
        yield from _policies(sections, config)
        if (compute := sections.get("compute")) is not None:
            yield from _attention(compute.attn_implementation, config)
    if (prepare := sections.get("prepare")) is not None and prepare.tokenizer_name_or_path is not None:
        name, revision = prepare.tokenizer_name_or_path, prepare.tokenizer_revision
        if base is None or name != base.model_name_or_path:
            yield from _tokenizer("prepare.tokenizer_name_or_path", name, revision, texts)
    for name in ("reward", "judge"):
        if name in sections:
            yield from _reward_model(name, sections[name], config, texts)
    if {"base", "reward", "ppo"} <= set(sections) and sections["ppo"].has_own_critic:
        yield from _critic(base, sections["reward"], sections["ppo"].critic)


def _broken(name: str | None) -> str | None:
    """What is wrong with the files of a model's directory; None of one of the hub, or of none."""
    place = os.path.expanduser(name) if name is not None else ""
    told = directory.fault(place) if os.path.isdir(place) else None
    return told and f"{name}: {told}"


def _critic(base: Any, reward: Any, critic: str) -> Iterator[str]:
    """A critic that would read other tokens than the policy's; what stages add to a vocabulary is left out."""
    named = base.model_name_or_path
    source = reward.source
    if named is None or source.location in START or (named, base.model_revision) == (source.location, source.revision):
        return
    of_policy, of_reward = _vocabulary(named, base.model_revision), _vocabulary(source.location, source.revision)
    if of_policy and of_reward and of_policy != of_reward:
        yield (
            f"ppo.critic: {critic} starts from the reward model, and {source.location} has another tokenizer than "
            f"{named}; set it to shared"
        )


def _vocabulary(name: str, revision: str | None) -> dict[str, int] | None:
    """The tokens of a model at hand, less those that were added; None where there is no tokenizer that can be read."""
    place = folder(name, revision, "tokenizer_config.json") or folder(name, revision)
    try:
        tokenizer = place and AutoTokenizer.from_pretrained(place, trust_remote_code=False, local_files_only=True)
    except Exception:  # the check of the tokenizers tells
        return None
    if not tokenizer:
        return None
    added = tokenizer.get_added_vocab()
    return {token: number for token, number in tokenizer.get_vocab().items() if token not in added}


def _policies(sections: Mapping[str, Any], config: Any) -> Iterator[str]:
    wanted = [name for name in ("rft", "kto") if getattr(sections.get("methods"), name, False)]
    for name in ("sft", "reference", *wanted):
        if name in sections:
            yield from _context(name, sections[name], config)
    # those of a fresh model are looked at without torch
    if sections["base"].model_name_or_path is not None and (limit := context_of(config)):
        yield from together.no_room(sections, limit, f"the model's context of {limit}")
    for name in POLICIES:
        if name in sections:
            yield from _weights(name, AutoModelForCausalLM, config, sections[name], "CAUSAL_LM")


def _attention(named: str, config: Any) -> Iterator[str]:
    """An attention that the architecture has not; those that need a package are the stages' to try."""
    if named not in ("eager", "sdpa"):
        return
    try:
        with torch.device("meta"):
            # a config keeps the attention that was tried
            of_its_own = deepcopy(config)
            AutoModelForCausalLM.from_config(of_its_own, trust_remote_code=False, attn_implementation=named)
    except ValueError as error:
        if told := attention_fault(error, named):
            yield told.removeprefix("params.yaml: ")


def _context(name: str, section: Any, config: Any) -> Iterator[str]:
    limit = context_of(config)
    if limit and section.max_length > limit:
        yield f"{name}.max_length: {section.max_length} tokens, but the model attends to {limit}; lower it"


def _is_policy(config: Any) -> bool:
    return not config.is_encoder_decoder and _on_meta(AutoModelForCausalLM, config) is not None


def _reward_model(name: str, section: Any, base: Any, texts: Sequence[str]) -> Iterator[str]:
    where = f"{name}.model_name_or_path"
    source = section.source
    if source.location in START:
        config = base
    else:
        place = folder(source.location, source.revision)
        if place is None:
            return
        if told := _broken(source.location):
            yield f"{where}: {told}"
            return
        yield from _tokenizer(where, source.location, source.revision, texts, policy=False)
        config = _config(place)
        if config is None:
            yield f"{where}: {place} has no config.json that transformers knows; name the directory of a model"
            return
    if config is None:
        return
    classifiers.register(config)
    model = _on_meta(AutoModelForSequenceClassification, config)
    if model is None or config.is_encoder_decoder or not hasattr(config.get_text_config(), "vocab_size"):
        kind = "an encoder-decoder" if config.is_encoder_decoder else f"of the kind {config.model_type}"
        yield f"{where}: {section.model_name_or_path} is {kind}, which cannot read pairs; name a decoder or an encoder"
        return
    yield from _context(name, section, config)
    yield from _weights(name, AutoModelForSequenceClassification, config, section, "SEQ_CLS")


def _weights(name: str, auto: Any, config: Any, params: Any, task: weights.Task) -> Iterator[str]:
    """Adapters or freezing that the model does not allow."""
    if params.lora_r is None and not params.freeze:
        return
    try:
        with torch.device("meta"):
            weights.choose(name, _on_meta(auto, config), params, task)
    except ParamsError as fault:
        yield str(fault).removeprefix("params.yaml: ")


def _config(place: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False, local_files_only=True)
    except Exception:  # whatever a broken file makes the libraries raise
        return None
    return None if directory.config_fault(config) else config


def _on_meta(auto: Any, config: Any) -> Any:
    """The model of a config, without weights; None where the class has none for this kind."""
    config.num_labels = 1
    try:
        with torch.device("meta"):
            return auto.from_config(config, trust_remote_code=False)
    except Exception:  # whatever a broken config makes the libraries raise
        return None


def _tokenizer(where: str, name: str, revision: str | None, texts: Sequence[str], policy: bool = True) -> Iterator[str]:
    """What is wrong with a tokenizer at hand: none, no vocabulary, no EOS (of a policy), or texts that it loses.

    The hub's cache may hold a part of a model, such as its config: what it lacks is fetched by the stage that needs it.
    """
    place = folder(name, revision, "tokenizer_config.json") or folder(name, revision)
    if place is None:
        return
    is_whole = os.path.isdir(os.path.expanduser(name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, local_files_only=True)
        tokenizer("a")
    except Exception as error:  # the libraries raise whatever they like for a broken file
        told = f"has no tokenizer that can be read ({one_line(error)}); copy the tokenizer's files there"
        yield from [f"{where}: {name} {told}"] if is_whole else []
        return
    if len(set(tokenizer.get_vocab()) - set(tokenizer.get_added_vocab())) == 0:
        told = "has no vocabulary; copy tokenizer.json or its vocabulary there"
        yield from [f"{where}: the tokenizer of {name} {told}"] if is_whole else []
        return
    if policy and where.startswith("base.") and tokenizer.eos_token is None:
        way = "write one of its tokens as eos_token into tokenizer_config.json"
        yield f"{where}: the tokenizer of {name} has no EOS token, with which answers end; {way}"
    elif policy and where.startswith("base."):
        yield from (f"{where}: {fault}" for fault in _template(tokenizer))
    yield from _losses(where, name, tokenizer, texts, policy)


def _template(tokenizer: Any) -> Iterator[str]:
    """A chat template that runs wild, ends no answer, or does not take a question."""
    try:
        answer_ends(tokenizer, None)
        if tokenizer.chat_template is not None and (told := templates.fault(tokenizer)):
            yield told
    except (NeverEnds, Unruly) as fault:
        yield str(fault)


def _losses(where: str, name: str, tokenizer: Any, texts: Sequence[str], policy: bool) -> Iterator[str]:
    """Texts that do not come back; an encoder, which may change case and accents, must know half of the tokens."""
    lost = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        back = tokenizer.decode(ids)
        if ids.count(tokenizer.unk_token_id) > len(ids) / 2 or (policy and _letters(back) != _letters(text)):
            lost.append((text[:60], back[:60]))
    if len(lost) > len(texts) * LOST:
        text, back = lost[0]
        yield (
            f"{where}: the tokenizer of {name} loses {len(lost)} of {len(texts)} texts: {text!r} comes back as "
            f"{back!r}; is its vocabulary whole, and of this language?"
        )


def _letters(text: str) -> str:
    """What must come back: all but the spaces, and however Unicode writes it."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))
