"""The datasets of the stand-in hub."""

import gzip
import json

import pytest
import yaml
from hub_processes import COMMIT
from standin_hub import StandInHub


def write_lines(path, values, opener=open):
    path.parent.mkdir(parents=True, exist_ok=True)
    with opener(path, "wt") as file:
        file.writelines(value if isinstance(value, str) else json.dumps(value) + "\n" for value in values)


def write_parquet(path, values):
    from pyarrow import Table, parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(Table.from_pylist(values), path)


def write_card(folder, **splits):
    files = [{"split": split, "path": path} for split, path in splits.items()]
    card = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{card}---\n# A dataset\n")


# no inference of types would leave these as they are
MIXED = [{"a": "4"}, {"a": 4}, {"a": None, "b": {"c": "2020-01-01 00:00:00"}}, [], 3]


def rows(text, count=2):
    return [{"text": f"{text} {i}"} for i in range(1, count + 1)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folders of the stand-in's datasets."""
    root = tmp_path_factory.mktemp("datasets")
    for subset in ("harmless-base", "helpful-base"):
        for split in ("train", "test"):
            write_lines(root / "hh" / subset / f"{split}.jsonl.gz", rows(f"{subset} {split}"), gzip.open)
    for name in ("evol", "flan", "sharegpt"):
        write_lines(root / "by_file" / f"{name}.jsonl", rows(name))
    for split, kind in (("train_prefs", str), ("test_prefs", str.encode), ("train_sft", str)):
        texts = [{"text": kind(row["text"])} for row in rows(split)]
        write_parquet(root / "typed" / "data" / f"{split}-00000-of-00001.parquet", texts)
    write_lines(root / "mixed" / "train.jsonl", MIXED)
    write_lines(root / "mixed" / "test.jsonl", ["not JSON\n"])
    write_lines(root / "card" / "one.json", rows("one"))
    write_lines(root / "card" / "two.json", rows("two"))
    write_card(root / "card", train="one.json", test_new="two.json")
    write_lines(root / "split" / "train.json", [json.dumps({"train": rows("one", 1), "val": rows("two", 1)})])
    write_lines(root / "split" / "validation.jsonl", rows("three", 1))
    (root / "typed" / "dataset_infos.json").write_text("{}")
    (root / "broken").mkdir()
    (root / "broken" / "train.parquet").write_text("PAR1")
    write_lines(root / "several" / "a" / "x.jsonl", rows("a"))
    write_lines(root / "several" / "b" / "x.jsonl", rows("b"))
    configs = [{"config_name": name, "data_files": f"{name}/*"} for name in ("a", "b")]
    (root / "several" / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    write_card(root / "typed", **{split: f"data/{split}-*" for split in ("train_prefs", "test_prefs", "train_sft")})
    return root


def serving(folders, **tokens):
    hub = StandInHub()
    for folder in folders.iterdir():
        hub.add("datasets", f"o/{folder.name}", folder, COMMIT, tokens.get(folder.name))
    return hub


def place(name, splits=("train",), revision=COMMIT, **more):
    splits = {split: split.startswith("test") for split in splits}
    return {"id": f"o/{name}", "revision": revision, "splits": splits, **more}


def own(name, revision=COMMIT, **more):
    return {"reader": "file", "hub_id": f"o/{name}", "revision": revision, **more}


HH = place("hh", ("train", "test"), subsets=["harmless-base", "helpful-base"])


def expected(repo, split, texts, test=False, subset="", line=True):
    where = " ".join(filter(None, (f"o/{repo}", subset, split)))
    values = [json.dumps({"text": text}) + "\n" if line else {"text": text} for text in texts]
    return [[f"{where}: row {number}", value, test, subset] for number, value in enumerate(values, start=1)]
