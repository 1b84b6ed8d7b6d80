import math
import subprocess
import sys
from itertools import combinations
from statistics import fmean, stdev

import pytest
import yaml
from project import DEMO, ROOT

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.measure.best_of_n import best_of_n_metrics, kl_bound, subsets
from rlhf_lib.measure.length_control import Match, controlled


def by_brute_force(rewards, values, n):
    """The mean value of the best of each subset; where several are best, the mean of theirs."""
    best = []
    for chosen in combinations(range(len(rewards)), n):
        top = max(rewards[i] for i in chosen)
        best.append(fmean(values[i] for i in chosen if rewards[i] == top))
    return fmean(best)


REWARDS = [
    [0.3, -1.0, 2.0, 0.7, 0.1],
    [1.0, 1.0, 0.0, 2.0, 2.0, 2.0],
    [5.0, 5.0, 5.0, 5.0],
    [0.0, 1.0, 1.0, 1.0, 3.0, -2.0, -2.0],
]
VALUES = [3.0, -1.0, 4.0, 1.5, 9.0, 2.0, -6.0]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("rewards", REWARDS)
def test_the_best_of_n_is_the_mean_over_all_subsets(rewards, n):
    values = VALUES[: len(rewards)]
    assert fmean(values, subsets(rewards, n)) == pytest.approx(by_brute_force(rewards, values, n))
    assert sum(subsets(rewards, n)) == pytest.approx(math.comb(len(rewards), n))


def test_equal_candidates_count_alike_in_any_order():
    assert subsets([1.0, 0.0, 1.0], 2) == [1.5, 0.0, 1.5]
    assert subsets([0.0, 1.0, 1.0], 2) == [0.0, 1.5, 1.5]


def test_the_best_of_all_is_the_best():
    assert subsets([0.2, 0.9, -3.0], 3) == [0, 1, 0]


def test_kl_bound_by_hand():
    assert kl_bound(1) == 0
    assert kl_bound(2) == pytest.approx(0.6931471805599453 - 0.5)
    assert kl_bound(8) == pytest.approx(2.0794415416798357 - 0.875)


def sample(prompt, draw, reward, judge, gold, **more):
    return {
        "id": prompt,
        "draw": draw,
        "reward": reward,
        "judge": judge,
        "gold": gold,
        "response": "x" * (1 + draw),
        "length": 2 + draw,
        "finished": True,
        **more,
    }


CANDIDATES = [
    *(sample("a", d, r, j, g) for d, (r, j, g) in enumerate([(0.0, 1.0, 0.0), (2.0, 0.0, 1.0), (1.0, 3.0, 0.5)])),
    *(sample("b", d, r, j, g) for d, (r, j, g) in enumerate([(1.0, 1.0, 1.0), (1.0, 2.0, 0.0), (0.0, 0.0, 0.0)])),
]
SFT = [
    sample(p, d, r, 0.5, 0.25, response="y" * (1 + d))
    for p, d, r in [("a", 0, 1.0), ("a", 1, 3.0), ("b", 0, 0.0), ("b", 1, 0.0)]
]
DATASET = [
    sample("a", 0, 1.5, 2.0, 1.0, chosen=True, response="z"),
    sample("a", 1, 9.0, 9.0, 0.0, chosen=False, response="zz"),
]


def test_metrics_by_hand():
    got = best_of_n_metrics(CANDIDATES, SFT, DATASET, [2, 3])
    assert list(got) == ["n2", "n3"] and (got["n2"]["n"], got["n3"]["n"]) == (2, 3)
    # of a's three pairs two have the second as best, one the third; of b's, one and a half each of the first two
    assert got["n2"]["reward"] == pytest.approx((5 / 3 + 1) / 2)
    assert got["n2"]["reward_se"] == pytest.approx(stdev([5 / 3, 1]) / math.sqrt(2))
    assert got["n2"]["judge"] == pytest.approx((1 + 1.5) / 2)
    assert got["n2"]["gold_gain"] == pytest.approx((5 / 6 - 0.25 + 0.5 - 0.25) / 2)
    # against both of SFT's draws: 2.0 wins one of (1, 3), 1.0 half of one
    assert got["n2"]["win_rate"] == pytest.approx(((2 * 0.5 + 0.25) / 3 + 1) / 2)
    assert got["n2"]["win_rate_chosen"] == pytest.approx(2 / 3)  # b has no chosen answer
    assert got["n2"]["win_rate_chosen_se"] is None
    # of three, a's second is best, and b's first two are; each against both of SFT's, of 1 and 2 characters
    best = [("a", 0, 1), ("a", 0, 0), ("b", 1, 0), ("b", 1, -1), ("b", 1, 1), ("b", 1, 0)]
    assert got["n3"]["judge_lc_win_rate"] == pytest.approx(controlled([Match(*match) for match in best])[0])
    assert got["n3"]["reward"] == pytest.approx((2 + 1) / 2)
    assert got["n3"]["kl_bound"] == pytest.approx(math.log(3) - 2 / 3)


def test_without_true_quality_nothing_is_said_of_it():
    bare = [[{k: v for k, v in s.items() if k != "gold"} for s in samples] for samples in (CANDIDATES, SFT, DATASET)]
    assert not any("gold" in key for key in best_of_n_metrics(*bare, [2])["n2"])


def run_stage(folder, **sections):
    evaluate = yaml.safe_load(DEMO.read_text())["evaluate"] | sections.pop("evaluate", {})
    (folder / "params.yaml").write_text(yaml.safe_dump({"policy": "ppo", "evaluate": evaluate, **sections}))
    write_jsonl(folder / "data/samples/sft.jsonl", [])
    stages = "from stages import best_of_n, measure; best_of_n.main(); sys.argv[1:] = ['best_of_n']; measure.main()"
    code = f"import sys; {stages}; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def test_without_an_n_the_stage_writes_empty_files_and_loads_no_torch(tmp_path):
    done = run_stage(tmp_path, best_of_n={"n": []})
    assert (done.returncode, done.stdout) == (0, "False\n")
    assert (tmp_path / "data/samples/best_of_n.jsonl").read_text() == "\n"
    assert (tmp_path / "metrics/eval/best_of_n.json").read_text() == "{}\n"


def test_the_best_of_greedy_answers_is_refused_in_one_line(tmp_path):
    done = run_stage(tmp_path, best_of_n={"n": [2]}, evaluate={"temperatures": [0.0]})
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "evaluate.temperatures" in done.stderr and "best_of_n.n to []" in done.stderr
