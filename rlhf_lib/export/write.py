"""What `make export` does: the folder dist/<name>, from a model's directory and the run that made it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lib import talk
from rlhf_lib.export import card, facts, gguf, ollama, target
from rlhf_lib.export.directory import MANIFEST, generation_config, replacing, write_model
from rlhf_lib.export.options import License

if TYPE_CHECKING:
    from transformers import GenerationConfig

_SHOWN = ("do_sample", "temperature", "top_k", "top_p", "num_beams", "min_new_tokens", "no_repeat_ngram_size")


def write(path: str, out: Path, dtype: str, license: License, llama_cpp: str | None) -> Path:
    """Export the model in a directory into `out`, and say what was written.

    A `SystemExit` of one line where there is no such model, or where something else is in its place.
    """
    converter = gguf.converter(llama_cpp)
    name = Path(path).resolve().name
    talk.check(path)
    target.check(Path(path), out / name)
    _now(f"loading {path}")
    policy = talk.load(path)
    known = facts.of(path)
    sampling, stop_strings = known.run.evaluated(known.stage), known.run.stop_strings(known.stage)
    config = generation_config(policy.model.generation_config, policy.tokenizer, sampling, stop_strings)
    parameters = sum(weight.numel() for weight in policy.model.parameters())
    with replacing(out / name) as folder:
        _now(f"writing weights in {dtype}, and tokenizer")
        write_model(policy.model, policy.tokenizer, config, dtype, folder)
        model = facts.Model(name, dtype, parameters, _stops(policy, config), _shown(config), _context(policy))
        _now("writing Modelfile")
        note = _write_modelfile(policy, model, folder)
        if converter:
            _now(f"writing {gguf.file_name(name, dtype)} by {converter.name}")
        fault = gguf.convert(converter, folder, name, dtype) if converter else gguf.told(out / name, name, dtype)
        _now("writing the card")
        text = card.render(known, model, license, note, None if fault else gguf.file_name(name, dtype))
        (folder / "README.md").write_text(text, encoding="utf-8")
        manifest = {"model": name, "dtype": dtype, "stage": known.stage, "source_md5": known.hashed}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    _tell(out / name)
    for line in (known.doubt and f"no numbers in the card: {known.doubt}", note and f"no Modelfile: {note}", fault):
        if line:
            print(line)
    return out / name


def _now(phase: str) -> None:
    """Say what begins: an export takes a minute where the model is large, or the machine busy."""
    print(f"export: {phase}", file=sys.stderr, flush=True)


def _write_modelfile(policy: talk.Policy, model: facts.Model, folder: Path) -> str | None:
    """Write it; or give the reason why there is none."""
    weights = gguf.file_name(model.name, model.dtype)
    try:
        text = ollama.modelfile(policy.tokenizer, weights, model.sampling, model.stops, model.context)
    except ollama.Unturnable as fault:
        return f"the chat template cannot be written in Go, as Ollama wants it: {fault}"
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    return None


def _stops(policy: talk.Policy, config: GenerationConfig) -> list[str]:
    """All that ends an answer, as text."""
    from rlhf_lib.models.stops import as_list

    tokens = policy.tokenizer.convert_ids_to_tokens(as_list(config.eos_token_id))
    return [*tokens, *(config.stop_strings or [])]


def _shown(config: GenerationConfig) -> Mapping[str, Any]:
    """How answers are drawn: what a generation config says of it, less what changes nothing."""
    values = {name: getattr(config, name, None) for name in (*_SHOWN, "max_new_tokens", "stop_strings")}
    return {name: value for name, value in values.items() if value is not None}


def _context(policy: talk.Policy) -> int | None:
    from rlhf_lib.models.loading import context_length

    return context_length(policy.model)


def _tell(folder: Path) -> None:
    """What was written."""
    files = sorted(folder.iterdir())
    size = sum(file.stat().st_size for file in files)
    print(f"{folder}: {', '.join(file.name for file in files)} ({size / 1e6:,.1f} MB)")
