"""Whole runs of stage `prepare` on any mixture of sources: what must hold of every split."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_rows import PARAMS, ROLES, part_of, places, responses, row, run, source

from rlhf_lib.common.rows import normalise
from rlhf_lib.data.prepare.clean import clean
from rlhf_lib.data.prepare.params import MixtureParams
from rlhf_lib.data.prepare.records import FILES
from rlhf_lib.data.prepare.split import split_of

TEXTS = st.sampled_from(
    [
        *("What is it?", "Is it so?", "2 + 2", "東京", "Straße", "été ?"),
        *("one two three four five six seven eight", "one two three four five six seven nine"),
    ]
) | st.text("ab ?", max_size=3)
SPOILERS = st.sampled_from([str.upper, str.title, str.casefold, lambda s: f" {s}?!", lambda s: s.replace(" ", ",\n\t")])
ANSWERS = st.sampled_from(["yes", "Yes", " yes", "no", " ", "it is so"])
SCORES = st.none() | st.integers(-1, 3).map(float)
SCORED = st.lists(st.tuples(ANSWERS, SCORES), max_size=4)
TESTS = st.sampled_from([False, False, True])
MIXTURES = st.one_of(
    st.integers(1, 3).map(lambda rows: MixtureParams(max_rows=rows)),
    st.sampled_from([0.5, 1.0, 3.0]).map(lambda weight: MixtureParams(weight=weight)),
    st.sampled_from([0.1, 0.3]).map(lambda share: MixtureParams(share=share)),
)
REPEATS = ("merged", "duplicate_prompt")


@st.composite
def mixtures(draw):
    """Rows of two or three sources, one of which merges, and the params of the run."""

    def one_of(*values):
        return draw(st.sampled_from(values))

    names = one_of("xy", "xyz")
    merging = one_of(*names)
    roles = [draw(st.lists(st.sampled_from(ROLES), min_size=1, unique=True)) for _ in names]
    sources = [
        source(name, rank, roles[rank], one_of(False, True), name == merging, one_of(None, (0.0, 5.0)))
        for rank, name in enumerate(names)
    ]
    rows = []
    for text in draw(st.lists(TEXTS, min_size=1, max_size=8)):
        for _ in range(draw(st.integers(1, 3))):
            made = row(draw(SPOILERS)(text), source=one_of(*names) + one_of("", "/part"), test=draw(TESTS))
            rows.append({**made, "responses": responses(*draw(SCORED))})
    sft, reward, judge, test = one_of(None, 0.2), one_of(None, 0.3), one_of(0.1, 0.29), one_of(0.0, 0.2)
    params = replace(
        PARAMS,
        sft_share=sft,
        reward_share=reward,
        preference_share=1 - (sft or 0) - (reward or 0) - judge - test,
        judge_share=judge,
        test_share=test,
        upstream_test=one_of(True, False),
        validation_share=one_of(0.1, 0.5),
        mixture=draw(st.dictionaries(st.sampled_from(names), MIXTURES)),
        pair_rule=one_of("best_vs_worst", "disjoint", "all"),
        max_pairs=one_of(None, 1),
        min_score_gap=one_of(0.0, 2.0),
        min_score_ratio=one_of(None, 2.0),
        group_size=one_of(None, 2),
        sft_responses=one_of("best", "all"),
        minhash_threshold=one_of(None, None, 0.4),
        seed=draw(st.integers(0, 9)),
    )
    return rows, params, sources


@settings(deadline=None)
@given(mixtures())
def test_a_prompt_is_in_one_part_and_half_and_a_test_prompt_in_no_training(mixture):
    rows, params, sources = mixture
    done = run(rows, params, *sources)
    found = places(done.files, params)
    assert all(len(where) == 1 for where in found.values())
    if params.upstream_test:
        tested = {normalise(row["prompt"]) for row in rows if row["split"] == "test" and clean(row, params).row}
        assert not [text for text in tested if any(where.endswith("_train") for where in found.get(text, ()))]
    if params.minhash_threshold is not None:
        used = [entry for entry in done.entries if entry.split]
        for one, other in combinations(used, 2):
            alike = (one.signature == other.signature).mean() >= params.minhash_threshold
            assert one.split == other.split or not alike


@settings(deadline=None)
@given(mixtures())
def test_chosen_responses_are_better_and_others_and_each_record_has_its_id(mixture):
    rows, params, sources = mixture
    done = run(rows, params, *sources)
    for name, records in done.files.items():
        assert len({record["id"] for record in records}) == len(records)
        for pair in records if name.startswith(("preference", "reward", "judge")) else ():
            assert pair["chosen"] != pair["rejected"]
            assert pair["score_chosen"] > pair["score_rejected"]


@settings(deadline=None)
@given(mixtures())
def test_every_row_is_kept_or_counted_once(mixture):
    rows, params, sources = mixture
    done = run(rows, params, *sources)
    counts = Counter(row["source"] for row in rows)
    lost = sum(done.tally.dropped_rows.values(), Counter())
    assert done.tally.rows_in == counts == done.tally.rows_kept + lost
    told = Counter(line["reason"] for line in done.log)
    reasons = done.tally.dropped_rows | done.tally.dropped_responses
    silent = ("merged", "not_in_mixture")
    assert told == {reason: count.total() for reason, count in reasons.items() if reason not in silent}


@settings(deadline=None)
@given(mixtures(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_is_no_matter(mixture, shuffler):
    rows, params, sources = mixture

    def outcome(rows):
        done = run(rows, params, *sources)
        assume("duplicate_prompt" not in done.tally.dropped_rows)  # of which the first row is kept
        kept = [entry for entry in done.entries if entry.dropped not in REPEATS]
        return {(entry.key, entry.source.name): (entry.split, entry.dropped) for entry in kept}

    assert outcome(shuffler.sample(rows, len(rows))) == outcome(rows)


@settings(deadline=None)
@given(mixtures())
def test_a_prompt_is_where_its_hash_puts_it_unless_a_file_there_has_no_other(mixture):
    rows, params, sources = mixture
    params = replace(params, minhash_threshold=None)
    done = run(rows, params, *sources)
    counts = {name: len({normalise(record["prompt"]) for record in records}) for name, records in done.files.items()}
    for entry in (entry for entry in done.entries if entry.split):
        alike = [other for other in done.entries if other.key == entry.key]
        roles = {role for other in alike if other.dropped not in REPEATS for role in other.roles}
        test = params.upstream_test and any(other.test for other in alike)
        if entry.split != split_of(entry.key, roles, test, params):
            assert not test
            files = [
                name for name in FILES if name == "test" or name.partition("_")[2] == entry.split.partition("_")[2]
            ]
            assert any(counts[name] == 1 for name in files if part_of(name, params) == entry.split)
