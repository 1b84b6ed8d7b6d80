"""The stages candidates, rft and rft_random on a tiny model."""

import json
from pathlib import Path

import pytest
from one_line import told
from rft_project import ROWS, set_params
from safetensors.torch import load_file
from shipped_params import check, check_fault
from trl import SFTConfig

from rlhf_lib.common import paths
from rlhf_lib.common.rows import is_blank, read_jsonl, write_jsonl
from stages import candidates, rft, rft_random


def weights(stage):
    return load_file(f"models/{stage}/model.safetensors")


def summary(stage):
    return json.loads(Path(paths.summary(stage)).read_text())[stage]


def test_the_params_but_n_are_those_of_trls_trainer(tmp_path):
    params = check("rft", {})
    assert (
        SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **params.config()).max_length == params.max_length
    )
    assert "rft.n: must be at least 2" in check_fault("rft", {"n": 1})


def test_the_best_candidates_are_learnt_from_and_any_by_the_control(project):
    candidates.main()
    found = {part: read_jsonl(paths.candidates(part)) for part in ("train", "validation")}
    assert [len(rows) for rows in found.values()] == [4 * len(ROWS), 8]
    assert not list(Path("checkpoints/candidates").iterdir())

    rft.main()
    groups = [[one for one in found["train"] if one["id"] == row["id"]][:3] for row in ROWS]
    usable = [[one for one in group if one["finished"] and not is_blank(one["response"])] for group in groups]
    best = [max(group, key=lambda one: one["reward"]) for group in usable if group]
    rows = read_jsonl(paths.chosen("rft", "train"))
    assert [(row["id"], row["draw"], row["completion"][0]["content"]) for row in rows] == [
        (one["id"], one["draw"], one["response"]) for one in best
    ]
    assert 5 <= len(best) == summary("rft")["rows"]
    assert summary("rft")["train_reward_chosen"] == pytest.approx(
        sum(one["reward"] for one in best) / len(best), rel=1e-4
    )
    assert Path(paths.curve("rft", "train")).read_text().count("\n") == 1 + -(-len(best) // 4)

    rft_random.main()
    of_control = read_jsonl(paths.chosen("rft_random", "train"))
    assert [row["id"] for row in of_control] == [row["id"] for row in rows]
    assert [row["draw"] for row in of_control] != [row["draw"] for row in rows]
    assert summary("rft_random")["train_reward_chosen"] < summary("rft")["train_reward_chosen"]
    sft, best_of_n, control = map(weights, ("sft", "rft", "rft_random"))
    assert sft.keys() == best_of_n.keys() == control.keys()
    for one, other in ((sft, best_of_n), (sft, control), (best_of_n, control)):
        assert any((one[name] != other[name]).any() for name in one)


def test_candidates_that_are_all_cut_off_are_told(project):
    one = {**ROWS[0], "draw": 0, "response": "a", "length": 1, "finished": False, "reward": 0.0}
    for part in ("train", "validation"):
        write_jsonl(paths.candidates(part), [{**one, "draw": draw} for draw in range(4)])
    assert told(rft.main) == "params.yaml: candidates.max_new_tokens: no candidate ends within it; raise it"
    assert not Path("models/rft").exists() and not Path("data/rft").exists()


def test_it_is_told_where_most_prompts_lose_all_their_candidates(project, capsys):
    one = {"draw": 0, "response": "a", "length": 1, "reward": 0.0}
    for part in ("train", "validation"):
        of_all = [
            {**row, **one, "draw": draw, "finished": number < 3} for number, row in enumerate(ROWS) for draw in range(4)
        ]
        write_jsonl(paths.candidates(part), of_all)
    rft.main()
    assert (
        f"rft: {len(ROWS) - 3} of {len(ROWS)} prompts have no candidate that ends, and teach nothing; raise "
        "candidates.max_new_tokens\n"
    ) in capsys.readouterr().out


def test_a_context_that_the_model_has_not_is_told_of_the_section(project):
    candidates.main()
    set_params(rft={"max_length": 65})
    for stage in (rft, rft_random):
        assert told(stage.main).startswith("params.yaml: rft.max_length: 65")
