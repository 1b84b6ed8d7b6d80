"""The model card: README.md of an export, with what the run says of the model and no number that is of another.

Its metadata are those that huggingface_hub's ModelCardData knows.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from rlhf_lib.common import paths
from rlhf_lib.common.policies import LABELS, POLICIES
from rlhf_lib.common.terminal import visible
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.readers import READERS
from rlhf_lib.export import limits, measured
from rlhf_lib.export.facts import Facts, Model
from rlhf_lib.export.options import License
from rlhf_lib.report import inputs as report
from rlhf_lib.report import tables
from rlhf_lib.report.columns import PERPLEXITY, QUALITY, TEXT
from rlhf_lib.report.page import versions
from rlhf_lib.report.verdict import mode_label, verdict

TRAINERS = {"sft": "SFTTrainer", "dpo": "DPOTrainer", "kto": "KTOTrainer", "rft": "SFTTrainer"}


# ---- metadata


def metadata(known: Facts, license: License) -> dict[str, Any]:
    """The keys of the card's head, those that are known."""
    method = known.stage or ""
    languages = known.params.get("prepare", {}).get("languages") or []
    found = {
        "base_model": known.base_model,
        "datasets": list(dict.fromkeys(hub for _, hub, _ in _sources(known.params) if hub)),
        "language": languages,
        "library_name": "transformers",
        "license": license.id,
        "license_name": license.name,
        "license_link": license.link,
        "pipeline_tag": "text-generation",
        "tags": [method.replace("_", "-")] * (method in POLICIES) + ["trl"] * (method in TRAINERS) + ["rlhf", "dvc"],
    }
    return {key: value for key, value in found.items() if value}


def _sources(params: Mapping[str, Any]) -> list[tuple[str, str | None, str]]:
    """(name, hub id or None, what it is) of each source of rows."""
    found: list[tuple[str, str | None, str]] = []
    for given in params.get("load", {}).get("sources", []):
        source = SourceParams(**given)
        hub = READERS[source.reader].hub
        name = source.hub_id or (hub.id if hub and not source.path else None)
        commit = source.revision or (hub.revision if hub else None)
        if name:
            found.append((source.name, name, f"`{name}` at commit `{commit}`"))
        elif source.reader == "demo":
            found.append((source.name, None, "rows that the project's demo makes by rules"))
        else:
            found.append((source.name, None, f"a local file, `{Path(source.path or '').name}`"))
    return found


# ---- the text


def render(known: Facts, model: Model, license: License, no_modelfile: str | None, weights: str | None) -> str:
    """The card as Markdown behind its metadata. no_modelfile: why there is none; weights: the GGUF's name, if it is
    there."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    template = environment.from_string(Path(__file__).with_suffix(".jinja").read_text(encoding="utf-8"))
    head = yaml.safe_dump(metadata(known, license), sort_keys=False, allow_unicode=True)
    tasks = measured.of_lm_eval(known)
    text = template.render(
        model=model,
        stops=" or ".join(f"`{json.dumps(stop, ensure_ascii=False)[1:-1]}`" for stop in model.stops),
        known=known,
        license=license,
        no_modelfile=no_modelfile,
        weights=weights,
        label=LABELS.get(known.stage or "", known.stage),
        trainer=_trained_by(known.stage),
        base=_base(known),
        sources=[(name, told) for name, _, told in _sources(known.params)],
        params=_yaml(known.params),
        measured_params=_yaml(measured.params(known)),
        limits=list(limits.sentences(known, model, bool(tasks))),
        hashes=_hashes(known),
        commit=_commit(),
        versions=versions(Path("requirements.txt")),
        sampling=", ".join(f"{key} {value}" for key, value in model.sampling.items()),
        evaluated=known.run.evaluated(known.stage),
        capability=measured.capability_table(tasks),
        capability_told=measured.capability_told(LABELS.get(known.stage or "", model.name), tasks),
        **_data(known),
        **_numbers(known),
    )
    return f"---\n{head}---\n\n{visible(text).strip()}\n"


def _trained_by(stage: str | None) -> str:
    if stage in TRAINERS:
        return f"TRL's {TRAINERS[stage]}"
    return {"ppo": "this project's PPO trainer", "rft_random": "TRL's SFTTrainer"}.get(stage or "", "")


def _base(known: Facts) -> str:
    base = known.params.get("base", {})
    if not base:
        return ""
    name = base.get("model_name_or_path")
    if name is None:
        sizes = ", ".join(f"{key} {base[key]}" for key in ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size"))
        return f"a GPT-2 with random weights and a vocabulary learnt from the data ({sizes})"
    if known.base_model:
        return f"`{name}`" + (f" at commit `{base['model_revision']}`" if base.get("model_revision") else "")
    return f"the model of a local directory, `{Path(name).name}`"


def _yaml(params: Mapping[str, Any]) -> str:
    return yaml.safe_dump(_public(params), sort_keys=False, allow_unicode=True).rstrip() if params else ""


def _public(value: Any) -> Any:
    """Params without the folders of the machine on which they were set."""
    if isinstance(value, Mapping):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return f".../{Path(value).name}"
    return value


def _data(known: Facts) -> dict[str, Any]:
    """What the data section shows; nothing where metrics/data.json is of another run."""
    data = known.inputs.data if known.inputs else {}
    used = measured.splits(known)
    splits = tables.split_table({"splits": {name: n for name, n in data.get("splits", {}).items() if name in used}})
    return {
        "rows_in": data.get("rows_in"),
        "rows_kept": data.get("rows_kept"),
        "splits": markdown([*["split"], *(c.heading for c in splits.columns)], splits.rows),
        "dropped": tables.dropped(data),
    }


def markdown(header: Sequence[str], rows: Sequence[tables.TableRow]) -> str:
    """A table of the report as Markdown; empty without rows."""
    return tables.markdown_table(header, [[row.name, *map(str, row.cells)] for row in rows]) if rows else ""


def _numbers(known: Facts) -> dict[str, Any]:
    """What the sections of the numbers show."""
    found = known.inputs
    if found is None or known.stage is None:
        return {"mode": "", "numbers": [], "comparison": "", "verdict": None}
    of_model, of_dataset = found.measured(known.stage), found.measured(known.stage, "dataset")
    cells = [(column, tables.cell(of_model, column)) for column in (*QUALITY, *TEXT)]
    cells.append((PERPLEXITY, tables.cell(of_dataset, PERPLEXITY)))
    numbers = [(column.heading, str(cell), column.meaning) for column, cell in cells if cell.value != tables.MISSING]
    return {
        "mode": mode_label(found.headline),
        "numbers": numbers,
        "comparison": tables.text_table(found),
        "verdict": verdict(found),
    }


def _hashes(known: Facts) -> list[tuple[str, str]]:
    """(path, md5) of the model, and of the data and models from which it was made."""
    if known.stage is None:
        return []
    read = known.run.read_by(known.run.way(known.stage)) | {paths.model(known.stage)}
    return [(path, md5) for _, path, md5 in report.hashes() if path in read and not path.startswith(paths.INPUTS)]


def _commit() -> str:
    """The commit of the working directory and whether it has changes, in words."""
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return "not known: no git repository"
    changed = [line[3:] for line in (_git("status", "--porcelain") or "").splitlines()]
    if not changed:
        return f"`{commit}`, without changes"
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return f"`{commit}`, with uncommitted changes in {', '.join(f'`{name}`' for name in changed[:5])}{more}"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None
