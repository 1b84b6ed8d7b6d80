"""Stand-ins for the models that people bring: tokenizers and chat templates in the manner of known families, with
small random models of the same architectures.

A tokenizer is a byte-level BPE learnt from a few texts, whose special tokens, BOS and EOS are those of the family.
"""

from __future__ import annotations

import functools
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from family_templates import CHATML, DEEPSEEK_R1, GEMMA, LLAMA_2, LLAMA_3, MISTRAL, PHI_3
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

THINGS = ("cat", "dog", "sky", "sea", "rose", "snow", "lemon", "night")
COLOURS = ("grey", "brown", "blue", "green", "red", "white", "yellow", "black")
TEXTS = [f"{ask} the {thing}?" for ask in ("What colour is", "Tell me about", "Who likes") for thing in THINGS]
TEXTS += [f"The {thing} is {colour}, of course." for thing, colour in zip(THINGS, COLOURS, strict=True)]

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
OWN_SIZES = {
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gemma2": {**SIZES, "head_dim": 16, "sliding_window": 32},
    "gpt_neox": {key: value for key, value in SIZES.items() if key != "num_key_value_heads"},
    "opt": {
        "hidden_size": 64,
        "word_embed_proj_dim": 64,
        "ffn_dim": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    },
}


@dataclass(frozen=True)
class Family:
    """What a family's tokenizer, template and generation_config.json say."""

    kind: str  # the architecture
    eos: str
    ends: tuple[str, ...]  # what generation_config.json has for EOS
    stops: tuple[str, ...]  # what ends an answer: that, the EOS, and what the template writes
    template: str | None = None
    specials: tuple[str, ...] = ()  # beside BOS, EOS and pad
    plain: tuple[str, ...] = ()  # added tokens that do not count as special
    bos: str | None = None
    pad: str | None = None
    adds_bos: bool = False  # whether the tokenizer puts the BOS before every text
    eats_spaces: bool = False  # whether special tokens swallow the white space behind them


IM = ("<|im_start|>", "<|im_end|>")
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>")
TURNS = ("<start_of_turn>", "<end_of_turn>")
BOS_2, EOS_2 = "<s>", "</s>"
BOS_3, EOS_3 = "<|begin_of_text|>", "<|end_of_text|>"
BOS_R1, EOS_R1 = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"
TEXT_END = "<|endoftext|>"

FAMILIES = {
    "gpt2": Family("gpt2", TEXT_END, (TEXT_END,), (TEXT_END,), bos=TEXT_END),
    "pythia": Family("gpt_neox", TEXT_END, (TEXT_END,), (TEXT_END,), bos=TEXT_END, specials=("<|padding|>",)),
    "opt": Family("opt", EOS_2, (EOS_2,), (EOS_2,), bos=EOS_2, pad="<pad>", adds_bos=True),
    "llama2": Family("llama", EOS_2, (EOS_2,), (EOS_2,), LLAMA_2, bos=BOS_2, adds_bos=True),
    "llama3": Family("llama", EOS_3, (EOS_3,), (EOS_3,), specials=HEADERS, bos=BOS_3, adds_bos=True),
    "llama3_instruct": Family(
        "llama",
        "<|eot_id|>",
        (EOS_3, "<|eom_id|>", "<|eot_id|>"),
        (EOS_3, "<|eom_id|>", "<|eot_id|>"),
        LLAMA_3,
        specials=(EOS_3, *HEADERS),
        bos=BOS_3,
        adds_bos=True,
    ),
    "gemma": Family(
        "gemma2",
        "<eos>",
        ("<eos>",),
        ("<eos>", "<end_of_turn>"),
        GEMMA,
        specials=TURNS,
        bos="<bos>",
        pad="<pad>",
        adds_bos=True,
    ),
    "qwen": Family(
        "qwen2",
        TEXT_END,
        (TEXT_END,),
        (TEXT_END, "<|im_end|>"),
        CHATML.replace("DEFAULT", "You are a helpful assistant."),
        specials=IM,
        pad=TEXT_END,
    ),
    "qwen_instruct": Family(
        "qwen2",
        "<|im_end|>",
        ("<|im_end|>", TEXT_END),
        ("<|im_end|>", TEXT_END),
        CHATML.replace("DEFAULT", "You are a helpful assistant, and were made by us."),
        specials=IM,
        pad=TEXT_END,
    ),
    "smollm2": Family(
        "llama",
        "<|im_end|>",
        ("<|im_end|>",),
        ("<|im_end|>",),
        CHATML.replace("DEFAULT", "You are a small assistant."),
        specials=(TEXT_END,),
        bos="<|im_start|>",
        pad="<|im_end|>",
    ),
    "mistral": Family(
        "mistral",
        EOS_2,
        (EOS_2,),
        (EOS_2,),
        MISTRAL,
        specials=("[INST]", "[/INST]"),
        bos=BOS_2,
        adds_bos=True,
    ),
    "phi3": Family(
        "phi3",
        TEXT_END,
        (TEXT_END, "<|assistant|>", "<|end|>"),
        (TEXT_END, "<|assistant|>", "<|end|>"),
        PHI_3,
        specials=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        bos=BOS_2,
        pad=TEXT_END,
        eats_spaces=True,
    ),
    "deepseek_r1": Family(
        "qwen2",
        EOS_R1,
        (EOS_R1,),
        (EOS_R1,),
        DEEPSEEK_R1,
        plain=("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<think>", "</think>"),
        bos=BOS_R1,
        pad=EOS_R1,
        adds_bos=True,
    ),
}
WITH_TEMPLATE = tuple(name for name, family in FAMILIES.items() if family.template is not None)


class StandIn(NamedTuple):
    """A model as it comes from the hub: before stage base has added anything."""

    tokenizer: PreTrainedTokenizerFast
    eos_ids: list[int]  # those of generation_config.json
    model: PreTrainedModel


def stand_in(name: str, seed: int = 0, texts: tuple[str, ...] = ()) -> StandIn:
    """The tokenizer of a family, which has also learnt from `texts`, and a random model in its manner."""
    family, tokenizer = FAMILIES[name], deepcopy(tokenizer_of(name, texts))
    eos_ids = tokenizer.convert_tokens_to_ids(list(family.ends))
    torch.manual_seed(seed)
    sizes = OWN_SIZES.get(family.kind, SIZES)
    ids = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("bos", "eos", "pad")}
    config = AutoConfig.for_model(family.kind, **sizes, **ids, vocab_size=len(tokenizer))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    model.generation_config.eos_token_id = eos_ids if len(eos_ids) > 1 else eos_ids[0]
    return StandIn(tokenizer, eos_ids, model)


@functools.cache
def tokenizer_of(name: str, texts: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """The tokenizer of a family, with its chat template."""
    family = FAMILIES[name]
    special = list(dict.fromkeys(t for t in (family.pad, family.bos, family.eos, *family.specials) if t is not None))
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(t, special=True, normalized=False, rstrip=family.eats_spaces) for t in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*TEXTS, *texts], trainer)
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.plain])
    if family.adds_bos and family.bos is not None:
        begin = (family.bos, backend.token_to_id(family.bos))
        backend.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", pair=f"{family.bos} $A {family.bos} $B", special_tokens=[begin]
        )
    names = {"bos_token": family.bos, "eos_token": family.eos, "pad_token": family.pad}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **{k: v for k, v in names.items() if v is not None})
    tokenizer.chat_template = family.template
    return tokenizer
