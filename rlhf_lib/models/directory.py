"""What keeps a model directory from being loaded, and how to mend it: looked up in its files, before any is read whole.

The libraries tell most of it in words about their own insides, and load a model without its tokenizer's files with a
tokenizer that knows no word.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, PreTrainedTokenizerBase
from transformers import __version__ as transformers_version

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_COPY = "copy the model's directory again"


def fault(path: str | Path) -> str | None:
    """What is wrong with the files of a model's directory, and the way out; None where nothing is seen to be."""
    folder = Path(path)
    return _config_fault(folder) or _weights_fault(folder) or _tokenizer_fault(folder)


def _config_fault(folder: Path) -> str | None:
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            return "adapters without the model that they belong to; merge them into it (peft's merge_and_unload)"
        return f"no config.json in it; {_COPY}"
    config = _json(folder / "config.json")
    if not isinstance(config, dict) or not config.get("model_type"):
        return f"config.json in it is cut short, or names no model_type; {_COPY}"
    kind = config["model_type"]
    if kind in CONFIG_MAPPING:
        return None
    if config.get("auto_map"):
        return (
            f"its architecture, {kind}, needs code of its own (auto_map in config.json), which is never run here; "
            "name a model whose architecture transformers has"
        )
    return f"transformers {transformers_version} has no architecture {kind} (config.json); name another model"


def _weights_fault(folder: Path) -> str | None:
    index = folder / _INDEX
    if not (folder / _WEIGHTS).is_file() and not index.is_file():
        if any(next(folder.glob(pattern), None) for pattern in _PICKLES):
            return (
                "its weights are pickles, which can run code and are never loaded here; load them once where you trust "
                "them, and save_pretrained() writes safetensors"
            )
        return f"no weights in it ({_WEIGHTS}); {_COPY}"
    names = [_WEIGHTS]
    if not (folder / _WEIGHTS).is_file():
        shards = _json(index)
        if not isinstance(shards, dict) or not isinstance(shards.get("weight_map"), dict):
            return f"{_INDEX} in it is cut short; {_COPY}"
        names = sorted(set(shards["weight_map"].values()))
    for name in names:
        if not (folder / name).is_file():
            return f"{name}, which {_INDEX} names, is missing; {_COPY}"
        if not _is_whole(folder / name):
            return f"{name} in it is cut short or no safetensors; {_COPY}"
    return None


def _tokenizer_fault(folder: Path) -> str | None:
    config = folder / "tokenizer_config.json"
    if not config.is_file() and not (folder / "tokenizer.json").is_file():
        vocabularies = ("vocab*", "*.model", "*.tiktoken", "tekken.json")
        if not any(next(folder.glob(pattern), None) for pattern in vocabularies):
            return (
                "no tokenizer in it (tokenizer.json); copy the files of the tokenizer that it was trained with into it"
            )
    for file in (config, folder / "tokenizer.json"):
        if file.is_file() and _json(file) is None:
            return f"{file.name} in it is cut short; copy it again"
    return None


def _json(file: Path) -> Any:
    """The value in a JSON file; None where there is none to read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _is_whole(file: Path) -> bool:
    """Whether the header of a safetensors file accounts for all its bytes."""
    try:
        with safe_open(file, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def tokenizer_fault(tokenizer: PreTrainedTokenizerBase, embeddings: int) -> str | None:
    """Why a tokenizer cannot serve a model of so many embedded tokens; None where it can.

    One more token of its own, such as a pad token that somebody added, is no fault: what needs it makes room for it.
    """
    ids = tokenizer("The cat sat on a mat.", add_special_tokens=False)["input_ids"]
    if not set(ids) - set(tokenizer.all_special_ids):
        return (
            "its tokenizer knows no words: the vocabulary is missing; copy the files of the tokenizer that it was "
            "trained with into it"
        )
    if (size := tokenizer.vocab_size) > embeddings:
        return (
            f"its tokenizer has {size:,} tokens, the model {embeddings:,}: it is another model's; copy the files of "
            "the tokenizer that it was trained with into it"
        )
    return None


def library_fault(error: Exception) -> str | None:
    """What `fault` would have said of a model of the hub, from what the libraries say of it; None for other words."""
    text = str(error)
    if "trust_remote_code" in text:
        return (
            "it needs code of its own, which is never run here; name a model whose architecture transformers has, and "
            "a tokenizer that it can read"
        )
    if "does not recognize this architecture" in text:
        return f"transformers {transformers_version} does not have its architecture; name another model"
    if "safetensors" in text and ("no file named" in text or "have a file named" in text):
        return "it has no safetensors, only pickles or nothing; name a revision or a model with safetensors"
    return None


def weights_fault(info: dict[str, Any]) -> str | None:
    """Which weights from_pretrained(output_loading_info=True) did not find, or not in the shape that config.json names;
    None where it found all."""
    if misfits := sorted(info["mismatched_keys"]):
        name, found, wanted = misfits[0]
        return (
            f"{name} has the shape {tuple(found)} in its weights and {tuple(wanted)} by its config.json; give both of "
            "one model"
        )
    if absent := sorted(info["missing_keys"]):
        return f"its weights lack {', '.join(absent[:3])}; name a model whose weights are those of its config.json"
    return None
