"""What makes a sound model directory a broken or a hostile one."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

EXECUTED = "executed"  # a file that code of a model would make in the project's folder
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CODE = f"open({EXECUTED!r}, 'w').close()\n"


class Payload:
    """What a pickle runs."""

    def __reduce__(self) -> Any:
        return exec, (CODE,)


def cut(name: str, size: int | float) -> Callable[[Path], None]:
    """The first bytes of a file alone, or the first part of it."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(size * len(content)) if isinstance(size, float) else size])

    return change


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Another content of a file."""
    text = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(text) and None


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    """Other values in a JSON file."""

    def change(folder: Path) -> None:
        file = folder / name
        known = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(known | changes))

    return change


def config(**changes: Any) -> Callable[[Path], None]:
    """Other values in config.json."""
    return edit("config.json", **changes)


def both(*changes: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Several changes, one after the other."""
    return lambda folder: [change(folder) for change in changes] and None


def remove(name: str) -> Callable[[Path], None]:
    """A file less."""
    return lambda folder: (folder / name).unlink()


def header(change_entry: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A safetensors header that says something else of its first tensor."""

    def change(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        entries = json.loads(content[8 : 8 + size])
        change_entry(entries["transformer.wte.weight"])
        text = json.dumps(entries).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])

    return change


def weight(value: float) -> Callable[[Path], None]:
    """A weight of another value."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        tensors["transformer.wte.weight"][5, 3] = value
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return change


def index(weight_map: Any) -> Callable[[Path], None]:
    """Weights by an index, of which `weight_map` makes every entry's file."""

    def change(folder: Path) -> None:
        names = load_file(folder / WEIGHTS)
        os.rename(folder / WEIGHTS, folder / "model-00001-of-00002.safetensors")
        mapped = dict.fromkeys(names, weight_map) if isinstance(weight_map, str) else weight_map
        (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": mapped}))

    return change


def outside(folder: Path) -> None:
    """An index of weights that lie beside the directory."""
    index("../outside.safetensors")(folder)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder.parent / "outside.safetensors")


def pickled(name: str) -> Callable[[Path], None]:
    """A pickle that runs code, in PyTorch's form and as it is."""
    return lambda folder: (folder / name).write_bytes(pickle.dumps(Payload()))


def torch_pickled(folder: Path) -> None:
    torch.save(Payload(), folder / "pytorch_model.bin")


def own_code(folder: Path) -> None:
    """Python files that auto_map names."""
    for name in ("configuration_own", "modeling_own", "tokenization_own"):
        (folder / f"{name}.py").write_text(f"{CODE}class Own: ...\n")


AUTO_MAP = {
    "AutoConfig": "configuration_own.Own",
    "AutoModelForCausalLM": "modeling_own.Own",
    "AutoModelForSequenceClassification": "modeling_own.Own",
}


def tokenizer(change_model: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A tokenizer.json that says something else."""

    def change(folder: Path) -> None:
        file = folder / "tokenizer.json"
        known = json.loads(file.read_text())
        change_model(known)
        file.write_text(json.dumps(known))

    return change


def added(number: int) -> Callable[[Path], None]:
    """A token that is added at an id."""
    entry = {"id": number, "content": "<far>", "single_word": False, "lstrip": False, "rstrip": False}
    return tokenizer(lambda known: known["added_tokens"].append({**entry, "normalized": False, "special": True}))


def more_tokens(known: dict[str, Any]) -> None:
    vocabulary = known["model"]["vocab"]
    known["model"]["vocab"] = vocabulary | {f"more{i}": len(vocabulary) + i for i in range(400)}


def adapter(base: str) -> Callable[[Path], None]:
    """Adapters beside the weights, which name another model as theirs."""
    known = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": 2, "lora_alpha": 2}
    return edit("adapter_config.json", **known, target_modules=["c_attn"])


def loop(name: str) -> Callable[[Path], None]:
    """A link to itself in place of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.symlink(name, folder / name)

    return change


def fifo(name: str) -> Callable[[Path], None]:
    """A pipe in place of a file, which nobody writes."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def a_folder(name: str) -> Callable[[Path], None]:
    """A folder in place of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return change
