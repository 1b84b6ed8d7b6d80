"""Whether a model and its numbers are those that dvc.lock records."""

from pathlib import Path

import pytest

from rlhf_lib.common.dvc_project import md5
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.export.provenance import Run


def test_a_model_is_known_by_its_files_wherever_it_lies(run):
    root = run()
    (root / "models/dpo").rename(root / "elsewhere")
    assert Run.read().maker(md5("elsewhere")) == "dpo"
    (root / "elsewhere/config.json").write_text("{}")
    assert Run.read().maker(md5("elsewhere")) is None and Run.read().maker(None) is None


def test_the_way_to_a_model_is_what_it_rests_on_in_order(run):
    run()
    assert Run.read().way("dpo") == ["load", "prepare", "base", "sft", "dpo"]
    assert Run.read().way("ppo") == ["load", "prepare", "base", "reward", "sft", "ppo"]
    assert set(Run.read().params("sft", "dpo")) == {"sft", "dpo"}


def test_params_of_single_keys_are_nested_as_in_the_file():
    read = {"a": {"params": {"params.yaml": {"dpo.beta": 1, "methods.dpo": True}}}}
    read["b"] = {"params": {"params.yaml": {"dpo": {"beta": 1, "seed": 2}, "launch": "python"}}}
    expected = {"dpo": {"beta": 1, "seed": 2}, "methods": {"dpo": True}, "launch": "python"}
    assert Run(read).params("a", "b") == expected == Run(read).params("b", "a", "nowhere")


def test_numbers_of_the_recorded_run_are_not_stale(run):
    run()
    assert [Run.read().stale(name) for name in ("sft", "ppo", "dpo", "best_of_n")] == [None] * 4
    assert all(Run.read().alike("dpo", name) for name in ("sft", "ppo"))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("models/dpo", "models/dpo", "models/dpo is not the one that stage evaluate@dpo read"),
        ("data/samples/dpo.jsonl", "data/samples/dpo.jsonl", "is not the one that stage measure@dpo read"),
        ("models/base", "models/base", "models/base is not the one that stage sft read"),
    ],
)
def test_a_link_that_does_not_hold_is_named(run, old, new, told):
    """A stage ran again, and what reads its outs did not."""
    run()
    stages = load_yaml(Path("dvc.lock"))["stages"]
    for stage in stages.values():
        for out in stage["outs"]:
            if out["path"] == old:
                out["md5"] = "0" * 32
    assert told in str(Run(stages).stale("dpo"))


def test_an_edited_metric_is_stale_and_so_is_one_that_is_not_recorded(run):
    root = run()
    (root / "metrics/eval/dpo.json").write_text("{}")
    assert Run.read().stale("dpo") == "metrics/eval/dpo.json is not what dvc.lock records"
    with open("data/samples/ppo.jsonl", "a") as file:
        file.write("{}\n")
    assert Run.read().stale("ppo") == "data/samples/ppo.jsonl is not what dvc.lock records"
    assert Run.read().stale("kto") == "dvc.lock has no metrics/eval/kto.json"
    Path("dvc.lock").unlink()
    assert Run.read().stale("sft") == "dvc.lock has no metrics/eval/sft.json"


def test_policies_that_answered_other_prompts_are_not_alike(run):
    run()
    stages = load_yaml(Path("dvc.lock"))["stages"]
    next(dep for dep in stages["evaluate@ppo"]["deps"] if dep["path"] == "data/splits/test.jsonl")["md5"] = "0" * 32
    stages["evaluate@sft"]["params"]["params.yaml"]["evaluate"] = {"temperatures": [0.5]}
    assert not Run(stages).alike("dpo", "ppo") and not Run(stages).alike("dpo", "sft")
