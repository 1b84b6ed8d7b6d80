"""What stage base found out about the model, once, so that no later stage guesses: a small JSON file beside it.

It goes with the model: what a stage makes of a model has the contract of that model.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE = "contract.json"


@dataclass(frozen=True, kw_only=True)
class Contract:
    """How a model and its tokenizer are to be used.

    architecture: transformers' name for it. layers: where its layers are, such as model.layers. context: tokens; None
    where the model knows no limit. bos_token: what begins a dialogue; None: nothing does. stop_tokens: each ends an
    answer. template: whether the model brought its chat template or got the project's. template_date: the day that a
    template is told which asks for it. new_tokens: what was added to the vocabulary, and what its embedding began as.
    packs: whether rows can lie end to end without seeing each other; padded_because: why not.
    """

    architecture: str
    layers: str
    num_layers: int
    context: int | None
    bos_token: str | None
    stop_tokens: list[str]
    template: str
    template_date: str | None
    new_tokens: dict[str, str]
    packs: bool
    padded_because: str | None

    def write(self, folder: str | Path) -> None:
        """Write it beside the model in a directory."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        (Path(folder) / FILE).write_text(text + "\n", encoding="utf-8")

    def told(self) -> Iterator[tuple[str, str]]:
        """Each part by its name, in words."""
        yield "architecture", f"{self.architecture}: {self.num_layers} layers ({self.layers})"
        yield "context", "no limit of its own" if self.context is None else f"{self.context:,} tokens"
        yield "a dialogue begins with", self.bos_token or "its first turn (no BOS token)"
        yield "an answer ends with", " or ".join(self.stop_tokens)
        date = f"; the day in it is {self.template_date}" if self.template_date else ""
        yield "chat template", self.template + date
        new = "; ".join(f"{token}: {how}" for token, how in self.new_tokens.items())
        yield "new tokens", new or "none"
        yield "rows", "end to end" if self.packs else f"padded: {self.padded_because}"


def of(model: PreTrainedModel) -> Contract | None:
    """The contract beside the directory that a model was loaded from; None where there is none, or where it is that of
    another architecture, whose files once lay there."""
    known = read(model.name_or_path) if model.name_or_path else None
    return known if known is not None and known.architecture == model.config.model_type else None


def read(folder: str | Path) -> Contract | None:
    """The contract beside the model in a directory; None where there is none, as of a model of somebody else, who may
    call something else so."""
    try:
        return Contract(**json.loads((Path(folder) / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
