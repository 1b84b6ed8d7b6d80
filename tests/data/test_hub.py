"""Datasets and models of the hub: the real `datasets`, `huggingface_hub` and `transformers`, in processes of their
own, against a stand-in hub on loopback."""

import functools
import gzip
import json
import os
import socket
import subprocess
import sys

import pytest
import yaml
from project import ROOT
from standin_hub import StandInHub

COMMIT, OTHER = "a" * 40, "b" * 40

READ = """
import json, sys
from rlhf_lib.common import environment
environment.prepare(offline=False)
from rlhf_lib.data.load import hub
from rlhf_lib.data.load.reader import Hub
from rlhf_lib.data.load.params import SourceParams

def outcome(fields, place):
    try:
        return [[*record] for record in hub.read(SourceParams(**fields), Hub(**place) if place else None)]
    except SystemExit as error:
        return str(error)

outcomes = {name: outcome(*case) for name, case in json.loads(sys.argv[1]).items()}
print(json.dumps(outcomes, default=bytes.decode))
"""

FAIL = READ.partition("def outcome")[0] + 'list(hub.read(SourceParams("file", hub_id="o/d", revision="a" * 40), None))'

# stage `base`, then a model that is not there, then a reward model
MODELS = """
import json
from dataclasses import replace
from rlhf_lib.base.params import BaseParams
from rlhf_lib.common.schema import read
from stages import base as stage

stage.main()
from rlhf_lib.base import model as base
from rlhf_lib.ppo.rewards import RewardFunctions

try:
    base.pretrained(replace(read("base", BaseParams), model_name_or_path="o/nothing"))
except SystemExit as error:
    fault = str(error)
rewards = RewardFunctions.load(["o/reward@" + "a" * 40], None, normalize_rewards=True)
print(json.dumps([fault, rewards([[{"role": "user", "content": "Name the cat."}]], ["Cat."], {}).total]))
"""


def start(hub, home, *command, cwd=ROOT, **env):
    """A Python process that knows no hub but `hub`; what goes to another host comes to it as CONNECT."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HOME": str(home),
        "HF_HOME": str(home),
        "HF_ENDPOINT": getattr(hub, "url", hub),
        "HTTPS_PROXY": getattr(hub, "url", hub),
        **env,
    }
    return subprocess.Popen(
        [sys.executable, *command], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read(hub, home, cases, **env):
    """The records of each case, as lists, or the message it ends with."""
    return outcomes(start(hub, home, "-c", READ, json.dumps(cases), **env))


def outcomes(process):
    out, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, "")
    return json.loads(out)


def message(process):
    """The one line that a process ends with."""
    out, error = process.communicate(timeout=120)
    assert (process.returncode, out, error.count("\n")) == (1, "", 1)
    return error


# ---- datasets


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
    for split in ("train_prefs", "test_prefs", "train_sft"):
        write_parquet(root / "typed" / "data" / f"{split}-00000-of-00001.parquet", rows(split))
    write_lines(root / "mixed" / "train.jsonl", MIXED)
    write_lines(root / "mixed" / "test.jsonl", ["not JSON\n"])
    write_lines(root / "card" / "one.json", rows("one"))
    write_lines(root / "card" / "two.json", rows("two"))
    write_card(root / "card", train="one.json", test_new="two.json")
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
BY_FILE = place("by_file", subsets=["evol", "flan"], subset_files="{}.jsonl")
TYPED = place("typed", ("train_prefs", "test_prefs"))
CASES = {
    "folders": ({"reader": "hh"}, HH),
    "folders, some": ({"reader": "hh", "subsets": ["helpful-base"], "max_records": 1}, HH),
    "files": ({"reader": "ultrafeedback"}, BY_FILE),
    "typed": ({"reader": "ultrafeedback_binarized", "max_records": 1}, TYPED),
    "mixed": (own("mixed"), None),
    "card": (own("card"), None),
    "one file": (own("card", subsets=["two.json"]), None),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def online(folders, home):
    """What the cases give, and what they asked the hub for."""
    with serving(folders) as hub:
        return read(hub, home, CASES), hub.requests


@pytest.fixture(scope="module")
def offline(folders, home, online):
    with serving(folders) as hub:
        more = {"other commit": (own("hh", OTHER), None), "never read": (own("never"), None)}
        return read(hub, home, {**CASES, **more}, HF_HUB_OFFLINE="1"), hub.requests


def expected(repo, split, texts, test=False, subset="", line=True):
    where = " ".join(filter(None, (f"o/{repo}", subset, split)))
    values = [json.dumps({"text": text}) + "\n" if line else {"text": text} for text in texts]
    return [[f"{where}: row {number}", value, test, subset] for number, value in enumerate(values, start=1)]


EXPECTED = {
    "folders": [
        record
        for subset in ("harmless-base", "helpful-base")
        for split in ("train", "test")
        for record in expected("hh", split, [f"{subset} {split} {i}" for i in (1, 2)], split == "test", subset)
    ],
    "folders, some": [
        *expected("hh", "train", ["helpful-base train 1"], False, "helpful-base"),
        *expected("hh", "test", ["helpful-base test 1"], True, "helpful-base"),
    ],
    "files": [
        record
        for name in ("evol", "flan")
        for record in expected("by_file", "train", [f"{name} 1", f"{name} 2"], False, name)
    ],
    "typed": [
        *expected("typed", "train_prefs", ["train_prefs 1"], line=False),
        *expected("typed", "test_prefs", ["test_prefs 1"], test=True, line=False),
    ],
    "mixed": [
        *([f"o/mixed train: row {i}", json.dumps(value) + "\n", False, ""] for i, value in enumerate(MIXED, start=1)),
        ["o/mixed test: row 1", "not JSON\n", True, ""],
    ],
    "card": [*expected("card", "train", ["one 1", "one 2"]), *expected("card", "test_new", ["two 1", "two 2"], True)],
    "one file": expected("card", "train", ["two 1", "two 2"], subset="two.json"),
}


@pytest.mark.parametrize("case", CASES)
def test_records_of_the_hub_and_then_of_the_cache(case, online, offline):
    assert online[0][case] == EXPECTED[case]
    assert offline[0][case] == EXPECTED[case]
    assert offline[1] == []


def test_only_what_is_read_is_downloaded_and_once(online):
    files = [line for line in online[1] if line.startswith("GET /datasets")]
    assert len(files) == len(set(files))
    assert not [line for line in files if "sharegpt" in line or "train_sft" in line]


def test_no_other_host_is_asked(online):
    assert not [line for line in online[1] if line.startswith("CONNECT")]


@pytest.mark.parametrize("case", ["other commit", "never read"])
def test_offline_without_it_in_the_cache(case, offline):
    error = offline[0][case]
    assert error.startswith("params.yaml: load.sources: file: dataset o/")
    assert "is not in the cache" in error
    assert "HF_HUB_OFFLINE" in error
    assert f"`hf download {error.split()[4]} --repo-type dataset --revision " in error


ERRORS = {
    "unknown id": ((own("nothing"), None), "no dataset o/nothing on the hub, or a private one; "),
    "unknown commit": ((own("hh", OTHER), None), f"dataset o/hh has no revision {OTHER}; "),
    "gated": ((own("card"), None), "dataset o/card is gated; "),
    "no commit": (
        ({"reader": "hh"}, {**HH, "revision": None}),
        "set its revision to a commit of o/hh, 40 hex digits; ",
    ),
    "no subset": (
        ({"reader": "hh", "subsets": ["online"]}, HH),
        "cannot read o/hh online: no such files of data; set its subsets to some of: harmless-base, helpful-base",
    ),
    "no split": (({"reader": "hh"}, place("typed", ["train"])), "o/typed has no split train; it has train_prefs, "),
    "which subset": (
        (own("several"), None),
        "cannot read o/several: Config name is missing.; set its subsets to some of: a, b",
    ),
    "broken file": ((own("broken"), None), "cannot read dataset o/broken: ArrowInvalid: "),
    "bad id": ((own("x/y"), None), "cannot read dataset o/x/y: "),
}


@pytest.fixture(scope="module")
def errors(folders, tmp_path_factory):
    with serving(folders, card="hf_secret") as hub:
        return read(hub, tmp_path_factory.mktemp("home"), {name: case for name, (case, _) in ERRORS.items()})


@pytest.mark.parametrize("case", ERRORS)
def test_each_fault_is_one_line(case, errors):
    (fields, _), text = ERRORS[case]
    assert errors[case].startswith(f"params.yaml: load.sources: {fields['reader']}: {text}")
    assert "\n" not in errors[case]


def test_a_token_opens_what_it_is_for(folders, tmp_path):
    with serving(folders, card="hf_mine", hh="hf_other") as hub:
        got = read(hub, tmp_path, {"mine": (own("card"), None), "other": (own("hh"), None)}, HF_TOKEN="hf_mine")
    assert got["mine"] == EXPECTED["card"]
    assert "dataset o/hh is gated; " in got["other"]
    assert "hf_mine" not in got["other"]


FAULTS = {
    "listing": (1, "GET /api/datasets/o/listing", {"status": 503}),
    "head": (2, "HEAD /datasets/o/head", {"status": 500}),
    "file": (2, "GET /datasets/o/file", {"status": 503}),
    "limit": (1, "GET /datasets/o/limit", {"status": 429}),
    "slow": (1, "GET /datasets/o/slow", {"wait": 2.0}),
    "reset": (1, "GET /datasets/o/reset", {"cut": 9, "reset": True}),
    "cut": (1, "GET /datasets/o/cut", {"cut": 11 * 2**20}),
}


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """A hub with faults, one process that reads from it, and one that has no hub; both wait a lot."""
    root, home = tmp_path_factory.mktemp("troubled"), tmp_path_factory.mktemp("home")
    with StandInHub() as hub, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for name, (times, on, fault) in FAULTS.items():
            # longer than the pieces in which a file is downloaded
            write_lines(root / name / "train.jsonl", [{"text": "x" * 12 * 2**20}] if name == "cut" else rows(name))
            hub.add("datasets", f"o/{name}", root / name, COMMIT)
            hub.fail(times, on, **fault)
        cases = json.dumps({name: (own(name), None) for name in FAULTS})
        reader = start(hub, home, "-c", READ, cases, HF_HUB_DOWNLOAD_TIMEOUT="1")
        yield functools.cache(lambda: outcomes(reader)), hub, start(url, home, "-c", FAIL), url


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_in_passing_is_tried_again(fault, troubled):
    records = troubled[0]()[fault]
    if fault != "cut":
        assert records == expected(fault, "train", [f"{fault} 1", f"{fault} 2"])
    else:
        assert json.loads(records[0][1]) == {"text": "x" * 12 * 2**20}
        assert [line for line in troubled[1].requests if line.endswith("train.jsonl bytes=10485760-")]


def test_no_hub_at_all(troubled):
    _, _, process, url = troubled
    start_of_line = f"params.yaml: load.sources: file: cannot reach the hub at {url} (ConnectError); "
    assert message(process).startswith(start_of_line)


# ---- models


def run_models(hub, root, name, **env):
    """The folder where stage `base` ran, and what the process printed at its end."""
    work = root / name
    work.mkdir()
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["base"] |= {"model_name_or_path": "o/policy", "model_revision": COMMIT}
    (work / "params.yaml").write_text(yaml.safe_dump(params))
    process = start(hub, root / "home", "-c", MODELS, cwd=work, **env)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return work, *json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory):
    """From the hub, and then without one."""
    root = tmp_path_factory.mktemp("models")
    with StandInHub() as hub:
        hub.add("models", "o/policy", tiny.policy, COMMIT)
        hub.add("models", "o/reward", tiny.reward, COMMIT)
        online = run_models(hub, root, "online")
    return online, run_models(hub, root, "offline", HF_HUB_OFFLINE="1")


def test_a_model_of_the_hub_and_then_of_the_cache(models, tiny):
    for work, _, _ in models:
        written = work / "models/base/model.safetensors"
        assert written.read_bytes() == (tiny.policy / "model.safetensors").read_bytes()


def test_a_reward_model_of_the_hub_and_then_of_the_cache(models, tiny):
    from rlhf_lib.scoring.reward_model import RewardModel

    local = RewardModel.load(tiny.reward, normalize=False)([[{"role": "user", "content": "Name the cat."}]], ["Cat."])
    for _, _, rewards in models:
        assert rewards == pytest.approx(local, rel=1e-5)


def test_a_model_that_cannot_be_had_is_one_line(models):
    for _, fault, _ in models:
        assert fault.startswith("params.yaml: base.model_name_or_path: cannot load 'o/nothing': ")
        assert "\n" not in fault
