"""The records of a dataset on the Hugging Face hub, which is downloaded once and then read from the cache.

`datasets.load_dataset` is not given the hub id. Where the hub does not answer, it would take whatever commit of the
dataset it read last. And it infers the types of a JSON or CSV file from its beginning: it refuses a file whose later
rows differ, and makes a number of a text "4" that stands among numbers. So the files are downloaded at their commit;
`datasets` says which file is of which split, and reads those that have types of their own, such as Parquet;
`files.read` reads the others.
"""

from __future__ import annotations

import glob
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rlhf_lib.common.hub import explain, one_line, patiently
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.data.load import files
from rlhf_lib.data.load.arrow_table import with_texts
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.reader import Hub, Record
from rlhf_lib.data.load.split_names import is_held_out

TIMEOUT = 10.0  # seconds for the hub's first answer
CARD = "README.md"  # may say which file is of which split
NO_DATA = {CARD, ".gitattributes", "dataset_infos.json"}


class Part(NamedTuple):
    """A split of a subset, and the files that hold it."""

    subset: str
    split: str
    test: bool
    builder: str  # the module of `datasets` for these files
    names: list[str]


def read(source: SourceParams, hub: Hub | None) -> Iterator[Record]:
    """The records of the dataset that `source` names, or else of the reader's own.

    Subset after subset, and in each the splits of `hub`, or without one all that there are; `max_records` of each
    split. What is downloaded stays in the cache, from which it is then read without any request.
    Raises a `SystemExit` of one line where the dataset cannot be had or read.
    """
    repo_id, revision = source.hub_id or (hub and hub.id), source.revision or (hub and hub.revision)
    if not repo_id:
        raise _fault(source, "give hub_id and revision, or path")
    if not revision:
        raise _fault(
            source,
            f"set its revision to a commit of {repo_id}, 40 hex digits; the dataset's page on the hub shows them "
            'under "Files and versions"',
        )
    _quieten()
    try:
        yield from _records(repo_id, revision, source, hub)
    except Exception as error:  # of the hub, the network, the disk, or the dataset's own files
        known = explain(error, repo_id, revision, "dataset", "set its path to local files")
        raise _fault(source, known or f"cannot read dataset {repo_id}: {_detail(error)}") from None


def _detail(error: BaseException) -> str:
    error = error.__cause__ or error
    return f"{type(error).__name__}: {one_line(error)}"


def _fault(source: SourceParams, text: str) -> ParamsError:
    return ParamsError(f"{PARAMS_FILE}: load.sources: {source.name}: {text}")


def _quieten() -> None:
    """No lines on what is tried again, no progress bars in a log file, and no request that counts who reads what."""
    import datasets
    import huggingface_hub

    huggingface_hub.logging.set_verbosity_error()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
        datasets.disable_progress_bars()


def _records(repo_id: str, revision: str, source: SourceParams, hub: Hub | None) -> Iterator[Record]:
    parts = list(_parts(repo_id, revision, source, hub))
    folder = _download(repo_id, revision, [name for part in parts for name in part.names])
    for part in parts:
        place = " ".join(filter(None, (repo_id, part.subset, part.split)))
        for number, (value, test) in enumerate(islice(_values(part, folder), source.max_records), start=1):
            yield Record(f"{place}: row {number}", value, part.test or test, part.subset)


def _parts(repo_id: str, revision: str, source: SourceParams, hub: Hub | None) -> Iterator[Part]:
    """What is to be read, in order."""
    card = _download(repo_id, revision, [CARD]) / CARD
    names = _names(repo_id, revision, card.parent)
    for subset in source.subsets or (hub and not source.hub_id and hub.subsets) or [""]:
        what = f"{repo_id} {subset}".rstrip()
        try:
            builder, splits = _splits(card, names, hub.subset_files.format(subset) if hub and subset else subset)
        except (FileNotFoundError, ValueError) as error:
            reason = str(error).partition("\n")[0] if isinstance(error, ValueError) else "no such files of data"
            there = ", ".join(sorted({name.partition("/")[0] for name in names})[:20])
            raise _fault(source, f"cannot read {what}: {reason}; set its subsets to some of: {there}") from None
        for split, test in _wanted(splits, source, hub).items():
            if split not in splits:
                raise _fault(source, f"{what} has no split {split}; it has {', '.join(splits)}")
            yield Part(subset, split, test, builder, splits[split])


def _wanted(splits: Mapping[str, object], source: SourceParams, hub: Hub | None) -> Mapping[str, bool]:
    """The splits to read -> whether each is held out for the test; of a user's own dataset, those that it has."""
    if hub and (not source.hub_id or hub.splits.keys() <= splits.keys()):
        return hub.splits
    return {name: bool(is_held_out(name)) or name.startswith("test") for name in splits}


def _names(repo_id: str, revision: str, folder: Path) -> list[str]:
    """The files of the dataset that may hold data."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        names = [file.path for file in get_cached_repo_tree(repo_id, repo_type="dataset", revision=revision)]
    except CachedRepoTreeNotFoundError:  # offline, with a cache that an older huggingface_hub filled
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return [name for name in names if name not in NO_DATA]


def _splits(card: Path, names: Sequence[str], subset: str) -> tuple[str, dict[str, list[str]]]:
    """The module of `datasets` for a subset, a folder or a file, and the files of each of its splits.

    It is asked about empty files of these names, so that only those are downloaded that are then read.
    """
    import datasets

    with TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        if card.is_file():
            shutil.copyfile(card, folder / CARD)
        option = "data_dir" if any(name.startswith(f"{subset}/") for name in names) else "data_files"
        options = {option: subset} if subset else {}
        builder = datasets.load_dataset_builder(str(folder), cache_dir=str(folder / ".cache"), **options)
        return builder.name, {
            str(split): [Path(path).relative_to(folder).as_posix() for path in paths]
            for split, paths in builder.config.data_files.items()
        }


def _download(repo_id: str, revision: str, names: Sequence[str]) -> Path:
    """The folder of the dataset's files at a commit, with these files in it."""
    from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    def fetch() -> Path:
        try:
            get_cached_repo_tree(repo_id, repo_type="dataset", revision=revision)
        except CachedRepoTreeNotFoundError:
            # snapshot_download would wait for the hub without a limit
            if not constants.is_offline_mode():
                HfApi().dataset_info(repo_id, revision=revision, timeout=TIMEOUT)
        patterns = [glob.escape(name) for name in names]
        return Path(snapshot_download(repo_id, repo_type="dataset", revision=revision, allow_patterns=patterns))

    return patiently(fetch)


def _values(part: Part, folder: Path) -> Iterator[tuple[Any, bool]]:
    """Each value, and whether its own file has it in a list for testing."""
    import datasets

    paths = [str(folder / name) for name in part.names]
    if all(map(files.is_untyped, paths)):
        return ((record.value, record.test) for path in paths for record in files.read(path))
    dataset = datasets.load_dataset(part.builder, data_files={part.split: paths}, split=part.split)
    return ((value, False) for value in with_texts(dataset, dataset.features.arrow_schema))
