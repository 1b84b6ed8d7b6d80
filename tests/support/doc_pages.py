"""The pages of the documentation, and the commands in them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from project import ROOT

COMMAND_PAGES = [Path("README.md"), *sorted(path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md"))]
PAGES = [*COMMAND_PAGES, *map(Path, ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "data/README.md"))]

# Commands of docs/serving.md that are not run, and why not.
SERVER, OTHERS = "a server, which tests/export runs", "needs vLLM, Ollama or llama.cpp"
TAKEN_AWAY = {
    "make serve MODEL=models/dpo": SERVER,
    "curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{\"model\": "
    '"models/dpo", "messages": [{"role": "user", "content": "Tell me the capital of France."}], "max_tokens": 48, '
    '"temperature": 0}\'': SERVER,
    "make push MODEL=models/dpo REPO=owner/name": "needs the network; tests/export pushes to a stand-in",
    "vllm serve dist/dpo --host 127.0.0.1 --port 8000 --served-model-name dpo": OTHERS,
    "make export MODEL=models/dpo DTYPE=fp16 LLAMA_CPP=../llama.cpp": OTHERS,
    "ollama create dpo -f dist/dpo/Modelfile": OTHERS,
    "ollama run dpo": OTHERS,
    "llama-server -m dist/dpo/dpo-f16.gguf --jinja": OTHERS,
}


def blocks(page: Path, language: str) -> list[list[str]]:
    """The lines of a page's fenced blocks of a language, without comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(body).rstrip().split("\n") for _, body in found]


def commands(block: list[str]) -> list[str]:
    return [command for line in block if (command := re.sub(r"(^|\s+)# .*$", "", line))]


def prose(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")
