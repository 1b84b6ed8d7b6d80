"""lm-evaluation-harness: what tasks there are, and what it says of a model that is loaded here.

It gets a model object, not a name: then it looks up nothing on the hub, and what is checked of a model's directory
elsewhere holds here too. It is imported inside functions, after `prepare`.
"""

from __future__ import annotations

import difflib
import importlib.util
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rlhf_lib.capability.numbers import Row, chance, documents, entry
from rlhf_lib.common import environment
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.talk import Policy

SEED = {"random_seed": 0, "numpy_random_seed": 1234, "torch_random_seed": 1234, "fewshot_random_seed": 1234}  # its own
BOOTSTRAP = 100  # resamples, for the metrics whose error is known in no other way
_ONLINE = "--online (make lm-eval ONLINE=1) lets it download what the task names"


@dataclass(frozen=True)
class Options:
    """What is asked of each task; the names are the library's.

    num_fewshot, limit: None: as the task has it, all documents. A limit below 1 is a share of them.
    """

    num_fewshot: int | None = None
    limit: float | None = None
    batch_size: int | str = 16
    apply_chat_template: bool = True


def check_installed() -> None:
    """A `ParamsError` where the library is not there."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ParamsError(
            "lm-evaluation-harness is not installed here; make lm-eval installs it, and so does "
            "pip install -r requirements-lm-eval.txt"
        )


def prepare(online: bool) -> None:
    """Turn telemetry off, and the network too unless it is asked for; before the library is imported.

    Metrics that are scripts on the hub stay out of reach in any case: they would be code of somebody.
    """
    environment.prepare(offline=not online)
    os.environ |= {"HF_EVALUATE_OFFLINE": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_DATASETS_TRUST_REMOTE_CODE": "0"}
    if not online:
        os.environ["HF_DATASETS_OFFLINE"] = "1"


@contextmanager
def quiet() -> Iterator[list[str]]:
    """A context in which the library says only errors; in the list is what it would have said of cut requests."""
    cut: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        cut.extend([record.getMessage()] if "runcating" in record.getMessage() else [])
        return record.levelno >= logging.ERROR

    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    models = logging.getLogger("lm_eval.models.huggingface")
    models.setLevel(logging.WARNING)
    models.addFilter(keep)
    try:
        yield cut
    finally:
        models.removeFilter(keep)


def tasks(names: Sequence[str], folder: Path, online: bool) -> tuple[Any, list[str]]:
    """The library's TaskManager, and the names of the tasks, patterns filled in; all have been loaded once.

    Those in `folder` come before the library's own of the same name. A `ParamsError` of one line for a name that
    nothing has, and for a task that cannot be loaded.
    """
    from lm_eval.tasks import TaskManager

    own = str(folder) if folder.is_dir() else None
    manager = TaskManager(include_path=own, include_defaults=False)
    if any(not _matching(manager, name) for name in names):  # reading the library's own takes seconds
        manager = TaskManager(include_path=own)
    found = [match for name in names for match in _matching(manager, name) or _unknown(manager, name, folder)]
    for name in found:
        _load(manager, name, online)
    return manager, list(dict.fromkeys(found))


def _matching(manager: Any, name: str) -> list[str]:
    if Path(name).suffix in (".yaml", ".yml"):
        return [name] if os.path.isfile(name) else []
    return sorted(manager.match_tasks([name]))


def _unknown(manager: Any, name: str, folder: Path) -> list[str]:
    near = difflib.get_close_matches(name, manager.all_tasks, 3, 0.5)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise ParamsError(
        f"no task {name}: {meant}{folder} and the library have none of that name; lm-eval ls tasks lists the library's"
    )


def _load(manager: Any, name: str, online: bool) -> None:
    try:
        manager.load([name])
    except Exception as error:  # whatever a task's file makes the library raise
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        asks = not online and re.search(r"[Oo]ffline|reach|on the Hub|cache", said)
        raise ParamsError(f"task {name} cannot be loaded: {said}" + (f"; {_ONLINE}" if asks else "")) from None


def measure(policy: Policy, manager: Any, names: Sequence[str], options: Options) -> tuple[dict[str, Any], int]:
    """What the library says of a model in these tasks, and how many requests were longer than the model's context."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with quiet() as cut:
        model: Any = policy.model  # with its tokenizer: the library asks for a model's name, or for one
        try:
            found = simple_evaluate(
                HFLM(pretrained=model, tokenizer=policy.tokenizer, batch_size=options.batch_size),
                tasks=list(names),
                task_manager=manager,
                num_fewshot=options.num_fewshot,
                limit=options.limit,
                apply_chat_template=options.apply_chat_template,
                bootstrap_iters=BOOTSTRAP,
                log_samples=True,
                confirm_run_unsafe_code=False,
                **SEED,
            )
        except ValueError as error:
            if "marked as unsafe" in str(error):
                raise ParamsError(f"{error} -- it runs code that a model writes, which is never done here") from None
            raise
    return found, len(cut)


def rows_of(found: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What was said of each document, by task, with the metrics' values; of the prompt, what the model was given."""
    return {task: [_row(sample) for sample in samples] for task, samples in found["samples"].items()}


def _row(sample: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: sample[key] for key in ("doc_id", "doc_hash", "target_hash", "filter")}
    asked = [list(map(str, arguments))[:2] for arguments in sample["arguments"]]
    said = {"prompt": asked[0][0], "target": sample["target"], "resps": sample["filtered_resps"]}
    return _plain({**kept, **said, **{metric: sample[metric] for metric in sample["metrics"]}})


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: no NaN, and other libraries' numbers as Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    try:
        return number if math.isfinite(number := float(value)) else None
    except (TypeError, ValueError):
        return str(value)


def entries(
    found: Mapping[str, Any], rows: Mapping[str, Sequence[Row]], options: Options, of_model: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """metrics/lm_eval.json's part of one model: each task, and each group of tasks, by what was asked (`asked`).

    rows: by task. of_model: its hash as model_md5, and what else there is to say of it.
    """
    within = found.get("group_subtasks") or {}
    part_of = {child: group for group, children in within.items() for child in children}
    made = {}
    for task, numbers in found["results"].items():
        below = [rows[task]] if task in rows else [rows[child] for child in _leaves(task, within) if child in rows]
        settings = {
            "apply_chat_template": options.apply_chat_template,
            "documents": documents([row for part in below for row in part]),
            "higher_is_better": found["higher_is_better"].get(task) or {},
            "limit": options.limit,
            "lm_eval": version("lm_eval"),
            **of_model,
            "n": int(numbers.get("sample_len") or sum(len({row["doc_id"] for row in part}) for part in below)),
            "n_shot": _shots(found, task, options),
            "seeds": list(SEED.values()),
            "version": str(found["versions"].get(task, "")),
            **({"part_of": asked(found, part_of[task], options)} if task in part_of else {}),
            **({"chance": chance(rows[task])} if _is_choice(found, task) and rows.get(task) else {}),
        }
        made[asked(found, task, options)] = entry(numbers, rows.get(task, []), settings)
    return made


def asked(found: Mapping[str, Any], task: str, options: Options) -> str:
    """The name of an entry: that of the task, and all that was not asked as usual, "arc_easy, 5-shot, limit 20"."""
    shots = _shots(found, task, options)
    said = [f"{shots}-shot"] if shots else []
    said += [f"limit {options.limit:g}"] if options.limit is not None else []
    said += [] if options.apply_chat_template else ["no chat template"]
    return ", ".join([task, *said])


def _shots(found: Mapping[str, Any], task: str, options: Options) -> int:
    return int(found["n-shot"].get(task, options.num_fewshot or 0))


def _is_choice(found: Mapping[str, Any], task: str) -> bool:
    return bool((found["configs"].get(task) or {}).get("output_type") == "multiple_choice")


def _leaves(group: str, within: Mapping[str, Sequence[str]]) -> list[str]:
    """The tasks of a group, and those of the groups in it."""
    return [leaf for child in within.get(group, ()) for leaf in (_leaves(child, within) or [child])]
