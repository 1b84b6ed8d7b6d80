"""Datasets of the hub: the real `datasets` and `huggingface_hub`, in processes of their own, against a stand-in hub on
loopback."""

import json

import pytest
from hub_datasets import HH, MIXED, expected, own, place, serving
from hub_processes import OTHER, read

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
    "held out": (own("split"), None),
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
    "held out": [
        ["o/split train: row 1", {"text": "one 1"}, False, ""],
        ["o/split train: row 2", {"text": "two 1"}, True, ""],
        ["o/split validation: row 1", json.dumps({"text": "three 1"}) + "\n", True, ""],
    ],
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


def test_a_token_opens_what_it_is_for(folders, tmp_path):
    with serving(folders, card="hf_mine", hh="hf_other") as hub:
        got = read(hub, tmp_path, {"mine": (own("card"), None), "other": (own("hh"), None)}, HF_TOKEN="hf_mine")
    assert got["mine"] == EXPECTED["card"]
    assert "dataset o/hh is gated; " in got["other"]
    assert "hf_mine" not in got["other"]
