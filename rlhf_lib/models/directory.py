"""What keeps a model directory from being loaded, and how to mend it: looked up in its files, before any is read whole.

The libraries tell most of it in words about their own insides, and load a model without its tokenizer's files with a
tokenizer that knows no word.
"""

from __future__ import annotations

import json
import os
import reprlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, PreTrainedTokenizerBase
from transformers import __version__ as transformers_version

from rlhf_lib.common.terminal import listed

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_READ = (".json", ".safetensors", ".jinja", ".model", ".txt")
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_LARGEST = {"num_hidden_layers": 10_000, "hidden_size": 1_000_000, "vocab_size": 100_000_000}
_COPY = "copy the model's directory again"
SAVE_TOKENIZER = "give it a tokenizer.json, which the tokenizer's save_pretrained() writes where transformers reads it"


def fault(path: str | Path) -> str | None:
    """What is wrong with the files of a model's directory, and the way out; None where nothing is seen to be."""
    folder = Path(path)
    return _files_fault(folder) or _config_fault(folder) or _weights_fault(folder) or _tokenizer_fault(folder)


def _files_fault(folder: Path) -> str | None:
    """Files that cannot be read: pipes, whose readers wait for ever, links to nothing, and what this user may not."""
    for file in sorted(folder.iterdir()):
        if file.suffix not in _READ or file.is_dir():
            continue
        if not file.is_file():
            return f"{file.name} in it is a link to nothing, or no regular file; {_COPY}"
        if not os.access(file, os.R_OK):
            return f"{file.name} in it may not be read; give this user the right to (chmod u+r)"
    return None


def _config_fault(folder: Path) -> str | None:
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            return "adapters without the model that they belong to; merge them into it (peft's merge_and_unload)"
        return f"no config.json in it; {_COPY}"
    if (folder / "adapter_config.json").is_file():  # transformers would load the model that it names
        return (
            "adapter_config.json in it, of adapters to another model; merge them into that (peft's merge_and_unload), "
            "or take the file out"
        )
    config = _json(folder / "config.json")
    if not isinstance(config, dict) or not isinstance(kind := config.get("model_type"), str) or not kind:
        return f"config.json in it is cut short, or names no model_type; {_COPY}"
    if any("/" in str(config.get(name)) for name in ("_attn_implementation", "attn_implementation")):
        return "config.json in it names code of the hub as its attention, which is never run here; take that out of it"
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
        names = sorted({str(name) for name in shards["weight_map"].values()})
        if not names:
            return f"{_INDEX} in it names no weights; {_COPY}"
    for name in names:
        if os.path.isabs(name) or os.pardir in Path(name).parts:
            return f"{name}, which {_INDEX} names, lies outside of it; {_COPY}"
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
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt")):
        for pattern in ("tekken.json", "*.tiktoken"):
            if (found := next(folder.glob(pattern), None)) is not None:
                return f"its tokenizer, {found.name}, is of a kind that is not read here; {SAVE_TOKENIZER}"
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        if (folder / name).is_file() and not isinstance(_json(folder / name), dict):
            return f"{name} in it is cut short; copy it again"
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
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= max(embeddings, len(tokenizer)):
        return (
            f"its tokenizer gives {token} the id {highest:,}, the model embeds {embeddings:,}; copy the files of the "
            "tokenizer that it was trained with into it"
        )
    if (size := tokenizer.vocab_size) > embeddings:
        return (
            f"its tokenizer has {size:,} tokens, the model {embeddings:,}: it is another model's; copy the files of "
            "the tokenizer that it was trained with into it"
        )
    return None


def config_fault(config: Any) -> str | None:
    """Which size in a config no model has; None where all are possible."""
    sizes = config.get_text_config()
    for name, most in _LARGEST.items():
        value = getattr(sizes, name, None)
        if isinstance(value, int | float | str) and not (isinstance(value, int) and 1 <= value <= most):
            return f"its config.json gives {name} as {reprlib.repr(value)}; copy that of the model"
    return None


def size_fault(path: str | Path, parameters: int) -> str | None:
    """Why the weights in a directory are not those of a model of so many parameters, each of which takes half a byte at
    least; None where they may be."""
    found = sum(file.stat().st_size for file in Path(path).glob("*.safetensors"))
    if parameters <= 2 * found:
        return None
    return (
        f"its config.json asks for {parameters:,} weights, and it has {found:,} bytes of them; give both of one model"
    )


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
        return f"its weights lack {listed(absent)}; name a model whose weights are those of its config.json"
    return None
