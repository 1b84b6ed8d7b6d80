"""dvc.yaml against the table of policies, which it cannot read: the lines that it lacks."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
from project import ROOT

from rlhf_lib.check.sections import SECTIONS
from rlhf_lib.common import paths
from rlhf_lib.common.policies import METHODS, POLICIES, TRAINERS, section
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.report.drawing import MARKERS, SIGNS


@pytest.fixture
def graph():
    return load_yaml(ROOT / "dvc.yaml")


def missing(graph) -> Iterator[str]:
    """What dvc.yaml lacks of the policies, `stage: line`."""
    stages = graph["stages"]
    evaluated, measured = stages["evaluate"]["foreach"], stages["measure"]["foreach"]
    for name, policy in POLICIES.items():
        stage = stages.get(name, {})
        files = (paths.split(f"{policy.learns_from}_train"), paths.with_negatives(f"{policy.learns_from}_train"))
        if not set(files) & {*stage.get("deps", ())}:
            yield f"{name}: deps: {' or '.join(files)}"
        needed = [
            (stage.get("outs", ()), f"{name}: outs", paths.model(name)),
            (evaluated, "evaluate: foreach", name),
            (measured, "measure: foreach", name),
            (stages["llm_judge"]["deps"], "llm_judge: deps", paths.samples(name)),
            (stages["report"]["deps"], "report: deps", paths.samples(name)),
            (stages["report"]["deps"], "report: deps", f"metrics/{name}"),
            (stages["report"]["params"], "report: params", policy.section or name),
        ]
        yield from (f"{where}: {line}" for lines, where, line in needed if line not in lines)
    for name, entry in measured.items():
        baseline = paths.split("${evaluate.split}") if name == "sft" else paths.samples("sft")
        if entry["baseline"] != baseline:
            yield f"measure: foreach: {name}: baseline: {baseline}"
    for name in METHODS:
        if (samples := paths.samples(name)) not in stages["attained"]["deps"]:
            yield f"attained: deps: {samples}"
        if graph["artifacts"].get(f"{name}-policy", {}).get("path") != paths.model(name):
            yield f"artifacts: {name}-policy: {paths.model(name)}"


def test_dvc_yaml_has_every_line_of_every_policy(graph):
    assert list(missing(graph)) == []
    assert graph["stages"]["evaluate"]["foreach"] == list(POLICIES)
    assert list(graph["stages"]["measure"]["foreach"]) == [*POLICIES, "best_of_n"]


def test_a_policy_without_lines_is_told_each_of_them(graph, monkeypatch):
    monkeypatch.setitem(POLICIES, "orpo", POLICIES["dpo"])
    told = list(missing(graph))
    assert "evaluate: foreach: orpo" in told and "measure: foreach: orpo" in told
    assert "orpo: outs: models/orpo" in told and "report: deps: metrics/orpo" in told
    assert len(told) == 8


def test_a_wrong_baseline_is_told(graph):
    other = copy.deepcopy(graph)
    other["stages"]["measure"]["foreach"]["dpo"]["baseline"] = paths.samples("ppo")
    assert list(missing(other)) == ["measure: foreach: dpo: baseline: data/samples/sft.jsonl"]


def test_every_policy_has_params_with_a_seed_and_its_coefficient():
    for name in TRAINERS:
        assert "seed" in SECTIONS[section(name)].__dataclass_fields__
    for name, method in METHODS.items():
        assert method.coefficient in SECTIONS[section(name)].__dataclass_fields__


def test_no_two_policies_look_alike():
    looks = [(policy.marker, colour) for policy in POLICIES.values() for colour in policy.colours]
    assert len({colour for _, colour in looks}) == len(looks)
    assert len({policy.label for policy in POLICIES.values()}) == len({p.marker for p in POLICIES.values()})
    assert {*MARKERS.values()} <= {*SIGNS}
