"""Loading the sequence classifiers that score."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.common.terminal import listed
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import directory, frozen, hardware
from rlhf_lib.models.heads import score_in_fp32
from rlhf_lib.models.loading import (
    Unfit,
    check_tokenizer,
    explaining,
    fetch,
    fetch_config,
    fetch_tokenizer,
    fuse_gelu,
    init_kwargs,
    only_errors,
    run_fast,
)
from rlhf_lib.models.unpadded import skip_padding


def load_classifier(
    name: str, revision: str | None, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The reward model at a path or hub id, with its tokenizer. `dtype`: what `frozen.hold` holds it in."""
    title = name if revision is None else f"{name}@{revision}"
    fault = f"{title}: cannot be loaded as a reward model"
    model, tokenizer, info = read_classifier(name, revision, fault, "sequence classifier", dtype)
    _check_head(title, info)
    return model, tokenizer


def read_classifier(
    name: str,
    revision: str | None,
    fault: str,
    wanted: str,
    dtype: torch.dtype = torch.float32,
    **quantization: Any,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]:
    """The one-output classifier at a path or hub id, in eval mode on the device, its tokenizer, and what
    from_pretrained() says of the loading. A `ParamsError` that begins with `fault` where there is none.

    from_pretrained() gives a checkpoint that has no head a random one, and with `num_labels=1` fails on another
    number of outputs with a table; so both are to be looked up in what it says.
    """
    # SDPA, named for the policy, is no command to a reward model that has none.
    kwargs = {**{key: value for key, value in init_kwargs().items() if value != "sdpa"}, **quantization}
    must_be = f"it must be a {wanted} with config.json, safetensors and tokenizer"
    with explaining(fault, name, revision, "name a directory", must_be):
        tokenizer = fetch_tokenizer(name, revision)
        config = fetch_config(name, revision, AutoModelForSequenceClassification)
        if type(config) not in AutoModelForSequenceClassification._model_mapping:
            raise Unfit(
                f"transformers has no sequence classifier of architecture {config.model_type}; name another model"
            )
        # Set here: as an argument, it is refused by a config of problem type single_label_classification.
        config.num_labels = 1
        options = {"config": config, "ignore_mismatched_sizes": True, "output_loading_info": True}
        with only_errors():
            model, info = fetch(AutoModelForSequenceClassification, name, revision, **options, **kwargs)
        of_trunk = [misfit for misfit in info["mismatched_keys"] if misfit[0].startswith(f"{model.base_model_prefix}.")]
        if told := directory.weights_fault({"mismatched_keys": of_trunk, "missing_keys": []}):
            raise Unfit(told)
        check_tokenizer(tokenizer, model)
    if hasattr(model, "score"):  # a decoder's head; an encoder's trunk sees its padding
        run_fast(model)
        skip_padding(model)
    fuse_gelu(model)
    score_in_fp32(model)
    frozen.hold(model, dtype)
    return (model if quantization else model.to(hardware.device())).eval(), tokenizer, info


def _check_head(title: str, info: dict[str, Any]) -> None:
    """A `ParamsError` unless every weight came from the checkpoint, the head with one output among them."""
    for _, shape, wanted in info["mismatched_keys"]:
        if len(shape) and wanted[0] == 1:
            raise ParamsError(
                f"{title}: a classifier with {shape[0]} outputs; a reward model has one (num_labels=1), so train or "
                "choose one that does"
            )
    if absent := sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]):
        raise ParamsError(
            f"{title}: not a reward model: the checkpoint has no fitting weights for {listed(absent)}; name a "
            "sequence classifier that was trained with one output"
        )
