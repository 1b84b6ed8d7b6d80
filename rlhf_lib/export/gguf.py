"""The GGUF of an export, by llama.cpp's own converter where one is found.

    python -m rlhf_lib.export.gguf convert_hf_to_gguf.py dist/dpo --outfile dpo.gguf --outtype f16

runs that converter, and tells it one thing more: it knows how a vocabulary splits a text into words by a list of known
vocabularies, and refuses all others, such as one that stage base has learnt. Where tokenizer.json says that it splits
as GPT-2 does, it does.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.export.options import GGUF_TYPES

CONVERTER = "convert_hf_to_gguf.py"


def converter(folder: str | None) -> Path | None:
    """The converter in llama.cpp's folder, which an argument or LLAMA_CPP names, or else in PATH; None where there is
    none. A `ParamsError` where the folder has none."""
    folder = folder or os.environ.get("LLAMA_CPP")
    if folder:
        found = Path(folder).expanduser() / CONVERTER
        if not found.is_file():
            raise ParamsError(f"{folder}: no {CONVERTER} in it; name a checkout of llama.cpp (LLAMA_CPP=...)")
        return found.resolve()
    in_path = shutil.which(CONVERTER)
    return Path(in_path).resolve() if in_path else None


def file_name(name: str, dtype: str) -> str:
    """What the GGUF of an export is called."""
    return f"{name}-{GGUF_TYPES[dtype]}.gguf"


def command(script: str | Path, folder: Path, outfile: Path, dtype: str) -> list[str]:
    """The command that converts an export."""
    options = ["--outfile", str(outfile), "--outtype", GGUF_TYPES[dtype]]
    return [sys.executable, "-m", "rlhf_lib.export.gguf", str(script), str(folder), *options]


def told(folder: Path, name: str, dtype: str) -> str:
    """What to say where there is no converter: the command, to be run in the project's folder."""
    words = ["python", *command(f"LLAMA_CPP/{CONVERTER}", folder, folder / file_name(name, dtype), dtype)[1:]]
    return (
        f"no GGUF: llama.cpp's converter is not here; with a checkout of llama.cpp, make export LLAMA_CPP=its/folder "
        f"writes it too, and so does\n  {shlex.join(words)}"
    )


def convert(script: Path, folder: Path, name: str, dtype: str) -> str | None:
    """Write the GGUF into the export; why that failed, in one line, or None."""
    outfile = folder / file_name(name, dtype)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command(script, folder, outfile, dtype), capture_output=True, text=True, env=environment)
    if done.returncode == 0 and outfile.is_file():
        return None
    outfile.unlink(missing_ok=True)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return f"no GGUF: {script} failed: {said[-1].strip()[:300] if said else f'exit code {done.returncode}'}"


def splits_as_gpt2(folder: Path) -> bool:
    """Whether an export's tokenizer splits texts into words by GPT-2's regular expression: that of `ByteLevel`."""
    try:
        how = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")).get("pre_tokenizer") or {}
    except (OSError, ValueError):
        return False
    return how.get("type") == "ByteLevel" and how.get("use_regex", True) and not how.get("add_prefix_space", False)


def _knowing(model_class: Any) -> None:
    """Let the converter's class take a vocabulary that is in no list where it splits as GPT-2 does."""
    known = model_class.get_vocab_base_pre

    def get_vocab_base_pre(self: Any, tokenizer: Any) -> str:
        try:
            return known(self, tokenizer)
        except NotImplementedError:
            if splits_as_gpt2(Path(self.dir_model)):
                return "gpt-2"
            raise

    model_class.get_vocab_base_pre = get_vocab_base_pre


def main() -> None:
    """The converter's command line behind the path of its script."""
    script = Path(sys.argv[1] if len(sys.argv) > 1 else "")
    if not script.is_file():
        raise SystemExit(f"{script}: no such file; name {CONVERTER} of a checkout of llama.cpp")
    sys.path.insert(0, str(script.parent))
    module = importlib.import_module(script.stem)
    try:  # where it keeps its models, or kept them
        classes = importlib.import_module("conversion.base")
    except ModuleNotFoundError:
        classes = module
    _knowing(classes.TextModel)
    sys.argv = sys.argv[1:]
    module.main()


if __name__ == "__main__":
    main()
