import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_rows import responses

from rlhf_lib.data.prepare.derive import PairRule, group, pairs, sft_responses, target, why_no_pair

SCORED = responses(("a", 7.1), ("b", 9.0), ("none", None), ("c", 6.6), ("d", 7.1))
FIVE = responses(("p", 1.0), ("q", 5.0), ("r", 3.0), ("s", 4.0), ("t", 2.0))
SIGNED = responses(("a", 8.0), ("b", 4.0), ("c", 3.0), ("d", 0.0), ("e", -2.0))
LIKES = responses(("a", 0.3), ("b", 0.1))


def contents(found):
    return "".join(response["content"] for response in found)


def named(found):
    """A pair as its two letters, the chosen one first."""
    return [better["content"] + worse["content"] for better, worse in found]


@pytest.mark.parametrize(
    ("scored", "rule", "expected"),
    [
        (SCORED, PairRule("best_vs_worst"), ["bc"]),
        (SCORED, PairRule("best_vs_worst", min_gap=2.4), ["bc"]),
        (SCORED, PairRule("best_vs_worst", min_gap=2.5), []),
        (responses(("a", 2.0), ("b", 2.0), ("c", 1.0), ("d", 1.0)), PairRule("best_vs_worst"), ["ac"]),
        (FIVE, PairRule("disjoint"), ["qp", "st"]),
        (FIVE, PairRule("disjoint", min_gap=3), ["qp"]),
        (FIVE, PairRule("disjoint", max_pairs=1), ["qp"]),
        (SCORED, PairRule("disjoint"), ["bc"]),
        (SCORED, PairRule("all"), ["ac", "ba", "bc", "bd", "dc"]),
        (SCORED, PairRule("all", min_gap=0.5), ["ac", "ba", "bc", "bd", "dc"]),  # 7.1 - 6.6 is 0.5 all the same
        (SCORED, PairRule("all", min_gap=1.9), ["ba", "bc", "bd"]),
        (SCORED, PairRule("all", max_pairs=2), ["bc", "ba"]),
        (SCORED, PairRule("all", max_pairs=5), ["ac", "ba", "bc", "bd", "dc"]),
        (SIGNED, PairRule("all", min_ratio=2.0), ["ab", "ac", "ad", "ae", "bd", "be", "cd", "ce"]),
        (SIGNED, PairRule("all", min_ratio=2.5, min_gap=5), ["ac", "ad", "ae", "be", "ce"]),
        (SIGNED, PairRule("best_vs_worst", min_ratio=100.0), ["ae"]),
        (LIKES, PairRule("all", min_ratio=3.0), ["ab"]),  # 0.1 * 3 is 0.3 all the same
        (LIKES, PairRule("all", min_ratio=3.1), []),
        (responses(("a", 0.0), ("b", -4.0)), PairRule("all", min_ratio=1.0), []),
        (responses(("a", -1.0), ("b", -4.0)), PairRule("all"), ["ab"]),
    ],
)
def test_pairs_by_hand(scored, rule, expected):
    assert named(pairs(scored, rule)) == expected


@pytest.mark.parametrize("rule", ["best_vs_worst", "disjoint", "all"])
@pytest.mark.parametrize(
    ("scored", "reason"),
    [
        (responses(("a", 5.0), ("b", 5.0)), "tie"),
        (responses(("a", 0.3), ("b", 0.1 + 0.2)), "tie"),
        (responses(("a", 5.0)), "single_response"),
        (responses(("a", 5.0), ("b", None)), "single_response"),
        (responses(("a", None), ("b", None)), "single_response"),
        ([], "single_response"),
        (SCORED, "gap_too_small"),
    ],
)
def test_why_there_is_no_pair(rule, scored, reason):
    assert pairs(scored, PairRule(rule, min_gap=3.0)) == []
    assert why_no_pair(scored) == reason


SCORES = st.none() | st.integers(-2, 3).map(float) | st.sampled_from([0.1, 0.2, 0.1 + 0.2, 0.3])
RULES = st.builds(
    PairRule,
    st.sampled_from(["best_vs_worst", "disjoint", "all"]),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.none() | st.sampled_from([1.0, 2.0]),
    st.none() | st.integers(1, 3),
)


@given(st.lists(SCORES, max_size=6), RULES)
def test_the_chosen_response_is_another_and_better(scores, rule):
    scored = responses(*(("abcdef"[number], score) for number, score in enumerate(scores)))
    found = pairs(scored, rule)
    for better, worse in found:
        assert better["content"] != worse["content"]
        assert better["score"] - worse["score"] > max(0.0, rule.min_gap - 1e-6)
    assert len(set(named(found))) == len(found) <= (rule.max_pairs or len(found))
    if rule.rule == "disjoint":
        assert len(set("".join(named(found)))) == 2 * len(found)
    widest = pairs(scored, rule._replace(rule="best_vs_worst"))
    assert bool(widest) <= bool(found)  # where the best and the worst are a pair, every rule has one


@pytest.mark.parametrize(
    ("which", "min_score", "expected"),
    [("best", None, "b"), ("all", None, ["a", "b", "none", "c", "d"]), ("above_score", 7.1, ["a", "b", "none", "d"])],
)
def test_sft_responses(which, min_score, expected):
    assert [r["content"] for r in sft_responses(SCORED, which, min_score)] == list(expected)


def test_of_equally_good_responses_the_first_is_the_best():
    assert contents(sft_responses(responses(("a", 5.0), ("b", 5.0)), "best", None)) == "a"


@pytest.mark.parametrize("which", ["best", "all", "above_score"])
def test_responses_without_scores_are_all_learnt_from(which):
    assert contents(sft_responses(responses(("a", None), ("b", None)), which, 9.0)) == "ab"


@pytest.mark.parametrize(
    ("size", "expected"), [(None, "qsrtp"), (5, "qsrtp"), (9, "qsrtp"), (4, "qstp"), (3, "qrp"), (2, "qp")]
)
def test_groups_by_hand(size, expected):
    assert contents(group(FIVE, size)) == expected


@given(st.lists(SCORES, max_size=12), st.integers(2, 9))
def test_a_group_has_the_best_and_the_worst_and_none_twice(scores, size):
    scored = [score for score in scores if score is not None]
    found = group(responses(*((str(number), score) for number, score in enumerate(scores))), size)
    assert len({r["content"] for r in found}) == len(found) == min(size, len(scored))
    assert [r["score"] for r in found] == sorted((r["score"] for r in found), reverse=True)
    if len(scored) > 1:
        assert (found[0]["score"], found[-1]["score"]) == (max(scored), min(scored))


@pytest.mark.parametrize(
    ("score", "scores", "targets", "expected"),
    [
        (1.0, (1.0, 10.0), (0.0, 1.0), 0.0),
        (10.0, (1.0, 10.0), (0.0, 1.0), 1.0),
        (4.0, (1.0, 10.0), (0.0, 1.0), 0.333333),
        (7.5, (1.0, 10.0), (1.0, 5.0), 3.888889),
        (0.0, (-2.0, 2.0), (-1.0, 1.0), 0.0),
        (12.0, (0.0, 10.0), (0.0, 1.0), 1.2),  # a score beyond the range is a target beyond it
        (7.0, (7.0, 7.0), (0.0, 1.0), 0.5),
    ],
)
def test_targets_by_hand(score, scores, targets, expected):
    assert target(score, scores, targets) == expected
