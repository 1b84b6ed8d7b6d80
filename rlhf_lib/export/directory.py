"""The export of a model: a folder that needs nothing of this project, and is there whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.export.options import DTYPES

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

MANIFEST = "export.json"  # written last: what has it is an export, and whole


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes the place of `folder` only once it is whole. A kill leaves what was there before, or
    nothing of that name.

    A `ParamsError` where something else than an export lies there, where nothing can be written, or where another
    process is at the same.
    """
    if folder.exists() and read_manifest(folder) is None:
        raise ParamsError(f"{folder}: is no export, and would be replaced; move it away, or give another --out")
    unfinished, old = (folder.with_name(f".{folder.name}.{state}") for state in ("unfinished", "old"))
    with _lock_file(folder) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ParamsError(f"{folder}: another export writes it at this moment; wait for that one") from None
        try:
            for left in (unfinished, old):  # by a kill
                shutil.rmtree(left, ignore_errors=True)
            unfinished.mkdir()
            yield unfinished
            for file in unfinished.iterdir():  # safetensors lets nobody else read what it writes
                file.chmod(0o644)
            if folder.exists():
                os.replace(folder, old)
            os.replace(unfinished, folder)
        finally:
            for left in (unfinished, old):
                shutil.rmtree(left, ignore_errors=True)
            with suppress(OSError):
                os.unlink(lock.name)


def _lock_file(folder: Path) -> IO[str]:
    """The open file of the lock beside a folder, whose parents are made."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return open(folder.with_name(f".{folder.name}.lock"), "w")
    except OSError as error:  # a file in the place of a folder, or no right to write
        raise ParamsError(
            f"{folder}: cannot be written: {error.filename}: {error.strerror}; give another --out"
        ) from None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What an export says of itself; None of a folder that is none, or not whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def write_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: GenerationConfig, dtype: str, folder: Path
) -> None:
    """Write weights in `dtype` as safetensors, config, generation config and tokenizer.

    The model is changed. A `ParamsError` where a weight is too large for the type.
    """
    import torch

    from rlhf_lib.models import loading
    from rlhf_lib.models.proof import takes_cache

    model.config.use_cache = takes_cache(model)  # trainers switch it off, and would slow every server down
    if model.config.model_type == "gpt2":
        model.config.n_ctx = model.config.n_positions  # older readers, llama.cpp's among them, know it by this name
    model.to(getattr(torch, DTYPES[dtype]))
    if name := loading.nonfinite(model):
        raise ParamsError(f"{name} holds numbers that {dtype} does not reach; export with DTYPE=bf16 or fp32")
    model.generation_config = config
    loading.save(model, tokenizer, folder)


def generation_config(
    own: GenerationConfig, tokenizer: PreTrainedTokenizerBase, sampling: Mapping[str, Any], stop_strings: list[str]
) -> GenerationConfig:
    """The model's own, with everything that ends an answer, and sampling as params of `evaluate` say: at the first of
    `temperatures`. Without such params the sampling stays as it is."""
    from transformers import GenerationConfig

    from rlhf_lib.models.stops import answer_ends, as_config

    kept = {name: getattr(own, name) for name in ("bos_token_id", "pad_token_id")}
    kept["eos_token_id"] = as_config(answer_ends(tokenizer, own))
    if kept["pad_token_id"] is None:
        kept["pad_token_id"] = tokenizer.pad_token_id
    if stop_strings:
        kept["stop_strings"] = stop_strings
    if not sampling:
        return GenerationConfig(**own.to_diff_dict() | kept)
    return GenerationConfig(**kept, **_sampling(sampling))


def _sampling(params: Mapping[str, Any]) -> dict[str, Any]:
    """Params of `evaluate` as transformers names them; what changes nothing is left out, for some readers know fewer
    of them."""
    temperature = params["temperatures"][0]
    limits = {name: params.get(name) for name in ("max_new_tokens", "min_new_tokens", "no_repeat_ngram_size")}
    found = {name: value for name, value in limits.items() if value}
    if temperature > 0:
        drawn = {"temperature": float(temperature), "top_k": params.get("top_k", 0), "top_p": params.get("top_p", 1.0)}
        return found | {"do_sample": True} | drawn
    return found | {"do_sample": False, "num_beams": params.get("num_beams", 1)}
