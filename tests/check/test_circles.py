"""A param may name what a stage makes only where the stage that reads it has it as a dep: all else is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from checked import told, with_values
from shipped_params import fault

from rlhf_lib.check.sections import check_all, faults

pytestmark = pytest.mark.usefixtures("folder")

COPY = "copy it to another place, and name that"
FILE = {"reader": "file"}


def found(changes: dict[str, object]) -> list[str]:
    return [line.removeprefix("params.yaml: ") for line in faults(with_values(changes))]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reward.model_name_or_path": "models/base", "judge.model_name_or_path": "models/sft"}, None),
        ({"negatives.model_name_or_path": "models/base"}, None),
        ({"ppo.reward_funcs": ["./models/reward/", "rewards.examples:brevity"]}, None),
        ({"base.model_name_or_path": "owner/name"}, None),
        (
            {"reward.model_name_or_path": "models/ppo"},
            f"models/ppo is made by stage ppo; reward reads it: a cycle (reward -> ppo -> reward); {COPY}",
        ),
        (
            {"negatives.model_name_or_path": "models/../models/dpo"},
            "models/../models/dpo is made by stage dpo; negatives reads it: a cycle (negatives -> dpo -> negatives); "
            f"{COPY}",
        ),
        (
            {"base.model_name_or_path": "./models/base"},
            f"./models/base is made by stage base; base reads it: a cycle (base -> base); {COPY}",
        ),
        (
            {"prepare.tokenizer_name_or_path": "models/sft/adapter"},
            "models/sft/adapter lies in models/sft, which stage sft makes; prepare reads it: a cycle (prepare -> sft "
            f"-> prepare); {COPY}",
        ),
        (
            {"ppo.reward_funcs": ["models/judge"]},
            "models/judge is made by stage judge, and is no dep of stage ppo in dvc.yaml, so that a change would go "
            f"unseen; add models/judge to its deps there, or {COPY}",
        ),
        (
            {"ppo.reward_funcs": ["models/reward/checkpoint-4"]},
            "models/reward/checkpoint-4 lies in models/reward, which stage reward makes anew; name models/reward, or "
            f"{COPY}",
        ),
        (
            {"load.sources": [{**FILE, "path": "data/samples/ppo.jsonl"}]},
            "data/samples/ppo.jsonl is made by stage evaluate@ppo; load reads it: a cycle (load -> prepare -> "
            f"evaluate@ppo -> load); {COPY}",
        ),
        (
            {"load.sources": [{**FILE, "path": "data/splits/mine.jsonl"}]},
            "data/splits/mine.jsonl lies beside data/splits/groups_train.jsonl, which stage prepare makes; load reads "
            f"it: a cycle (load -> prepare -> load); {COPY}",
        ),
        (
            {"load.sources": [{**FILE, "path": "**/*.jsonl"}]},
            "**/*.jsonl matches data/rejected.jsonl, which stage prepare makes; load reads it: a cycle (load -> "
            f"prepare -> load); {COPY}",
        ),
        (
            {"llm_judge.rubric": "metrics/data.json"},
            "metrics/data.json is made by stage prepare, and is no dep of stage llm_judge in dvc.yaml, so that a "
            f"change would go unseen; {COPY}",
        ),
    ],
)
def test_an_input_that_a_stage_makes_is_told_unless_it_is_a_dep(changes, expected):
    names = [f"{name}[{0}]" if isinstance(value, list) else name for name, value in changes.items()]
    names = [f"{name}.path" if name.startswith("load") else name for name in names]
    assert found(changes) == ([f"{names[0]}: {expected}"] if expected else [])


def test_whole_paths_and_links_are_the_outs_that_they_lead_to(folder: Path):
    (folder / "models").mkdir()
    (folder / "mine").symlink_to(folder / "models")
    assert found({"ppo.reward_funcs": [f"{folder}/models/reward"]}) == [
        f"ppo.reward_funcs[0]: {folder}/models/reward is models/reward, which stage reward makes; name it so: "
        "models/reward"
    ]
    assert found({"judge.model_name_or_path": "./mine/ppo"}) == [
        "judge.model_name_or_path: ./mine/ppo is models/ppo, which stage ppo makes, and is no dep of stage judge in "
        f"dvc.yaml, so that a change would go unseen; add models/ppo to its deps there, or {COPY}"
    ]
    assert found({"base.model_name_or_path": "mine"})[0].startswith(
        "base.model_name_or_path: mine holds models/base, which stage base makes; base reads it: a cycle (base -> base)"
    )


def test_a_folder_or_a_glob_with_a_link_to_an_out_is_told(folder: Path):
    (folder / "models/ppo").mkdir(parents=True)
    (folder / "models/ppo/model.safetensors").touch()
    (folder / "data/raw").mkdir(parents=True)
    (folder / "data/raw/rows.jsonl").touch()
    for name, target in (("mine/a.safetensors", "models/ppo/model.safetensors"), ("rows/b.jsonl", "data/raw")):
        (folder / name).parent.mkdir()
        (folder / name).symlink_to(folder / target)
    (folder / "mine/config.json").touch()
    (folder / "rows/a.jsonl").touch()
    assert found({"reward.model_name_or_path": "mine"}) == [
        "reward.model_name_or_path: mine lies in models/ppo, which stage ppo makes; reward reads it: a cycle (reward "
        f"-> ppo -> reward); {COPY}"
    ]
    assert found({"load.sources": [{**FILE, "path": "rows/*.jsonl"}]}) == []  # a link to a folder is no file
    assert found({"load.sources": [{**FILE, "path": "rows/*/*.jsonl"}]}) == [
        "load.sources[0].path: rows/*/*.jsonl lies in data/raw, which stage load makes; load reads it: a cycle (load "
        f"-> load); {COPY}"
    ]


def test_an_out_that_is_a_dep_by_a_changed_dvc_yaml_is_taken(folder: Path):
    params = "    params: [compute, methods.ppo, ppo]"
    text = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").unlink()
    (folder / "dvc.yaml").write_text(
        text.replace(
            f"    - models/reward\n    - models/sft\n{params}", f"    - models/judge\n    - models/sft\n{params}"
        ).replace(
            "    - models/reward\n    - models/sft\n    params: [att",
            "    - models/judge\n    - models/sft\n    params: [att",
        )
    )
    assert found({"ppo.reward_funcs": ["models/judge"]}) == []
    assert found({})[0].startswith("ppo.reward_funcs[0]: models/reward is made by stage reward, and is no dep of stage")


def test_without_dvc_yaml_there_is_no_graph_and_a_broken_one_is_told(folder: Path):
    (folder / "dvc.yaml").unlink()
    assert found({"reward.model_name_or_path": "models/ppo"}) == []
    (folder / "dvc.yaml").write_text("stages: [")
    assert fault(check_all, with_values({})).startswith("dvc.yaml: not valid YAML: ")


def test_the_check_tells_each_such_param_once(folder: Path):
    assert [line.partition(":")[0] for line in told({"base.model_name_or_path": "models/base"})] == [
        "base.model_name_or_path"
    ]
