"""The base model and tokenizer: a pretrained snapshot, or a fresh GPT-2 with a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from rlhf_lib.base.params import BaseParams
from rlhf_lib.base.tokens import Started, add_special_tokens, start_untrained
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models.chat import END, PAD, ROLES, chat_template
from rlhf_lib.models.loading import Unfit, explaining, fetch_causal
from rlhf_lib.models.settled import settle
from rlhf_lib.models.stops import NeverEnds, answer_ends, as_config


def fresh_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE of at most `vocab_size` tokens learnt from `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=PAD)


def fresh_model(params: BaseParams, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A randomly initialised GPT-2 without dropout.

    `gelu_pytorch_tanh` is the same function as GPT-2's `gelu_new`, computed in one kernel.
    """
    set_seed(params.seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=params.n_positions,
        n_embd=params.n_embd,
        n_layer=params.n_layer,
        n_head=params.n_head,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return GPT2LMHeadModel(config)


def pretrained(params: BaseParams) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The snapshot that the params name, at its revision; a `ParamsError` when it cannot be had."""
    name, revision = str(params.model_name_or_path), params.model_revision
    way_out = "give a directory or a hub id, or null for a fresh model"
    with explaining(f"params.yaml: base.model_name_or_path: cannot load {name!r}", name, revision, way_out, way_out):
        model, tokenizer = fetch_causal(name, revision)
        if getattr(model, "is_quantized", False):
            raise Unfit(
                "its weights are of 8 or 4 bits, from which no plain model can be written; name the model that they "
                "were made from, and set load_in_8bit or load_in_4bit in the sections of what trains it by adapters"
            )
    return model, tokenizer


def complete(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> Started:
    """Add, once and in place, what later stages rely on: a pad token of its own, and the chat template. What rows of
    the embedding were started from is given back.

    A model that brings its own template keeps it. With pad equal to EOS a GPT-2 classifier would pool the token
    before the EOS, so a new pad token is made even where the model uses its EOS for padding.
    """
    if tokenizer.eos_token is None:
        raise ParamsError(
            "params.yaml: base.model_name_or_path: its tokenizer has no EOS token, with which answers end; write one "
            "of its tokens as eos_token into its tokenizer_config.json, or choose another model"
        )
    wanted: dict[str, str | list[str]] = {}
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        wanted["pad_token"] = PAD
    if tokenizer.chat_template is None:
        wanted["extra_special_tokens"] = list(ROLES)
    started = add_special_tokens(model, tokenizer, wanted, seed)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = chat_template()
    settle(tokenizer)
    started |= start_untrained(model, tokenizer)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
    model.config.update(ids)
    if not model.can_generate():
        return started  # a classifier
    try:
        ends = as_config(answer_ends(tokenizer, model.generation_config))
    except NeverEnds as fault:
        raise ParamsError(f"params.yaml: base.model_name_or_path: {fault}") from None
    # A model's own sampling defaults (top-p, a repetition penalty) would make rollouts differ from their log-probs.
    model.generation_config = GenerationConfig(**{**ids, "eos_token_id": ends})
    return started
