"""The graph of dvc.yaml, as the check reads it, against DVC's own reading."""

import pytest
from dvc.repo import Repo
from project import ROOT
from shipped_params import shipped

from rlhf_lib.check.sections import faults
from rlhf_lib.inputs.graph import Graph, Stage, lies_in, overlap

FOREACH = """
stages:
  a: {cmd: x, deps: [in.txt], outs: [one/out, {two.json: {cache: false}}]}
  b:
    foreach: ${names.some}
    do:
      wdir: sub
      cmd: x
      deps: [../one/out, '${item}', '${gone}']
      metrics: ['m_${key}.json']
  c:
    foreach: {k: {x: 1}}
    do: {cmd: x, deps: ['d_${item.x}_${key}'], plots: [p.tsv]}
  d:
    matrix: {m: [u, v], n: '${names.some}'}
    cmd: x
    deps: ['${item.m}/${item.n}']
  broken: 3
"""


def test_it_is_what_dvc_reads(monkeypatch):
    monkeypatch.chdir(ROOT)
    stages = Graph.read(shipped()).stages
    theirs = {
        stage.addressing: (
            {dep.def_path for dep in stage.deps if dep.def_path != "params.yaml"},
            {o.def_path for o in stage.outs},
        )
        for stage in Repo(str(ROOT)).index.stages
        if stage.addressing.partition("@")[0] in {name.partition("@")[0] for name in stages}
    }
    assert {name: (set(stage.deps), set(stage.outs)) for name, stage in stages.items()} == theirs
    assert len(stages) > 20


def test_items_keys_and_matrices_are_filled_in(tmp_path):
    (tmp_path / "dvc.yaml").write_text(FOREACH)
    stages = Graph.read({"names": {"some": ["p", "q"]}}, tmp_path / "dvc.yaml").stages
    assert stages["a"] == Stage(("in.txt",), ("one/out", "two.json"))
    assert stages["b@q"] == Stage(("one/out", "sub/q", "sub/${gone}"), ("sub/m_q.json",))
    assert stages["c@k"] == Stage(("d_1_k",), ("p.tsv",))
    assert stages["d@v-p"].deps == ("v/p",)
    assert set(stages) == {"a", "b@p", "b@q", "c@k", "d@u-p", "d@u-q", "d@v-p", "d@v-q"}


def test_ways_go_from_out_to_dep():
    graph = Graph(
        {"a": Stage((), ("m",)), "b": Stage(("m/x",), ("n",)), "c": Stage(("n",), ()), "d": Stage((), ("o",))}
    )
    assert graph.way("a", "c") == ["a", "b", "c"]
    assert graph.way("a", "a") == ["a"]
    assert graph.way("c", "a") is None and graph.way("d", "c") is None


@pytest.mark.parametrize(
    ("one", "other", "inside"), [("a/b", "a", True), ("a", "a", True), ("ab", "a", False), ("a", "a/b", False)]
)
def test_paths_lie_in_folders_by_whole_names(one, other, inside):
    assert lies_in(one, other) is inside
    assert overlap(one, other) is (one != "ab")


ODD = """
stages:
  a: 3
  b: {deps: x, outs: [3, {4: 5}, [6], null]}
  c: {foreach: 3, do: {deps: 4}}
  d: {foreach: null, do: {}}
  e: {matrix: {x: 3}}
  f: {wdir: [1], outs: ["a\\0b"]}
  5: {}
  null: {do: {}, foreach: [[1], {a: 1}]}
  g: {foreach: "${a.b}", do: {}}
  h: {foreach: true, do: {}}
  i: {foreach: abc, do: {outs: [x]}}
"""


@pytest.mark.parametrize("text", [ODD, "stages: []", "stages: 3", "{}"])
def test_what_dvc_would_refuse_does_no_harm(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(text)
    params = shipped()
    graph = Graph.read(params)
    assert graph.way("5", "5") == ["5"] if text == ODD else graph.stages == {}
    assert faults(params) == []


def test_no_file_is_an_empty_graph(tmp_path):
    assert Graph.read({}, tmp_path / "dvc.yaml").stages == {}
