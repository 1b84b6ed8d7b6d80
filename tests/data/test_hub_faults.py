"""Datasets that the hub does not have or cannot give, each told in one line; and a hub in trouble."""

import functools
import json
import socket

import pytest
from hub_datasets import HH, expected, own, place, rows, serving, write_lines
from hub_processes import COMMIT, FAIL, OTHER, READ, message, outcomes, read, start
from standin_hub import StandInHub

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
def errors(folders, troubled, tmp_path_factory):
    """What a process said of each error, while that of `troubled` waits."""
    with serving(folders, card="hf_secret") as hub:
        return read(hub, tmp_path_factory.mktemp("home"), {name: case for name, (case, _) in ERRORS.items()})


@pytest.mark.parametrize("case", ERRORS)
def test_each_fault_is_one_line(case, errors):
    (fields, _), text = ERRORS[case]
    assert errors[case].startswith(f"params.yaml: load.sources: {fields['reader']}: {text}")
    assert "\n" not in errors[case]


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


@pytest.mark.slow
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
