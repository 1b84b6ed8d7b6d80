import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lib.params.prepare import PrepareParams
from rlhf_lib.prepare import FILES, empty_split, pairs, prepare, report, sft_rows, split_of, tidy, why_no_pair
from rlhf_lib.rows import make_row, normalise

PARAMS = PrepareParams(
    languages=[],
    language_confidence=0.5,
    pair_rule="all",
    min_score_gap=0.0,
    sft_responses="all",
    sft_min_score=None,
    sft_share=0.4,
    preference_share=0.4,
    validation_share=0.3,
    test_share=0.2,
    seed=0,
)
ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared/data/ultrafeedback_binarized_1k.jsonl"
ENGLISH = replace(PARAMS, languages=["en"])
FRENCH = "Quelle est la capitale de la France et combien d'habitants compte-t-elle aujourd'hui ?"


def row(prompt="Is it so?", *responses, source="s"):
    scored = [{"content": text, "score": float(score)} for text, score in responses or [("yes", 8), ("no", 3)]]
    return make_row(source, [{"role": "user", "content": prompt}], scored)


def contents(responses):
    return [r["content"] for r in responses]


def named(found):
    return [(better["content"], worse["content"]) for better, worse in found]


SCORED = row("q", ("a", 7.1), ("b", 9), ("c", 6.6), ("d", 7.1))


def test_best_vs_worst_is_one_pair():
    assert named(pairs(SCORED, "best_vs_worst", 0.5)) == [("b", "c")]
    assert pairs(SCORED, "best_vs_worst", 2.5) == []


def test_all_pairs_by_hand():
    assert named(pairs(SCORED, "all", 0.0)) == [("a", "c"), ("b", "a"), ("b", "c"), ("b", "d"), ("d", "c")]
    assert named(pairs(SCORED, "all", 0.5)) == named(pairs(SCORED, "all", 0.0))  # 7.1 - 6.6 is 0.5 all the same
    assert named(pairs(SCORED, "all", 1.9)) == [("b", "a"), ("b", "c"), ("b", "d")]


@pytest.mark.parametrize("rule", ["best_vs_worst", "all"])
def test_ties_and_single_responses_are_no_pairs(rule):
    tie, single = row("q", ("a", 5), ("b", 5)), row("q", ("a", 5))
    assert pairs(tie, rule, 0.0) == pairs(single, rule, 0.0) == pairs({**single, "responses": []}, rule, 0.0) == []
    assert [why_no_pair(tie), why_no_pair(single), why_no_pair(SCORED)] == ["tie", "single_response", "gap_too_small"]


def test_sft_responses():
    assert contents(sft_rows(SCORED, "best", None)) == ["b"]
    assert contents(sft_rows(SCORED, "all", None)) == ["a", "b", "c", "d"]
    assert contents(sft_rows(SCORED, "above_score", 7.1)) == ["a", "b", "d"]
    assert contents(sft_rows(row("q", ("a", 5), ("b", 5)), "best", None)) == ["a"]


def test_tidy_cleans_and_drops_repeats():
    tidied = tidy(row(" q\r\nr ", (" yes\r\n", 3), ("yes", 9), (" \n", 5), ("a\r\nb", 1)), PARAMS)
    assert tidied.row["prompt"][0]["content"] == "q\nr"
    assert tidied.row["responses"] == [{"content": "yes", "score": 3.0}, {"content": "a\nb", "score": 1.0}]
    assert tidied.dropped_responses == ["duplicate_response", "empty_response"]
    assert tidied.dropped is None


def test_tidy_filters_by_language():
    tidied = tidy(row("What is the capital of France?", (FRENCH, 9), ("Paris.", 7), ("No.", 1), ("42", 1)), ENGLISH)
    assert contents(tidied.row["responses"]) == ["Paris.", "No.", "42"]
    assert (tidied.dropped_responses, tidied.response_languages) == (["foreign_response"], ["fr"])
    assert tidy(row(FRENCH, ("Paris.", 7)), ENGLISH).dropped == "foreign_prompt"
    assert tidy(row(FRENCH, ("Paris.", 7)), PARAMS).dropped is None
    assert tidy(row("What is it?", (FRENCH, 9)), ENGLISH).dropped == "no_response"


def test_the_language_of_a_dialogue_is_that_of_its_last_question():
    turns = [("user", FRENCH), ("assistant", FRENCH), ("user", "Please tell me that in plain English instead.")]
    messages = [{"role": role, "content": text} for role, text in turns]
    assert tidy(make_row("s", messages, row()["responses"]), ENGLISH).dropped is None


def test_duplicates_keep_the_first_that_is_usable():
    rows = [row("What is it?", (FRENCH, 9)), row("what is it"), row("What is IT ?!", ("other", 1))]
    done = prepare(rows, ENGLISH)
    assert done.dropped_rows == {"no_response": {"s": 1}, "duplicate_prompt": {"s": 1}}
    assert done.split_prompts.total() == 1
    assert "other" not in json.dumps(done.files)


WORDS = st.lists(st.sampled_from(["what", "is", "Straße", "été", "東京", "2"]), min_size=1, max_size=3)
SPOILERS = st.sampled_from([str.upper, str.title, str.casefold, lambda s: f" {s}?!", lambda s: s.replace(" ", ",\n\t")])


@st.composite
def near_duplicates(draw):
    base = draw(st.lists(WORDS.map(" ".join), min_size=1, max_size=8))
    prompts = [draw(SPOILERS)(text) for text in base for _ in range(draw(st.integers(1, 3)))] + draw(
        st.lists(st.text())
    )
    return [row(prompt) for prompt in draw(st.permutations(prompts))]


@settings(deadline=None)
@given(near_duplicates(), st.integers(0, 5))
def test_no_normalised_prompt_lies_in_two_splits(rows, seed):
    done = prepare(rows, replace(PARAMS, seed=seed))
    places = {}
    for name, records in done.files.items():
        for record in records:
            split = name.replace("prompts", "preference")
            assert places.setdefault(normalise(record["prompt"]), split) == split
    assert done.split_prompts.total() == len(places)
    assert len(places) + sum(c.total() for c in done.dropped_rows.values()) == len(rows)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text("abc ?", min_size=1), min_size=1, max_size=12), st.randoms())
def test_splits_depend_neither_on_order_nor_on_other_rows(prompts, random):
    def places(texts):
        files = prepare([row(text) for text in texts], PARAMS).files
        return {
            normalise(r["prompt"]): name for name, records in files.items() for r in records if "prompts" not in name
        }

    before = places(prompts)
    assert places(random.sample(prompts, len(prompts))) == before
    half = places(prompts[: len(prompts) // 2])
    assert half.items() <= before.items()


def test_shares_are_met_and_test_stays_when_the_others_change():
    texts = [f"user question {i}" for i in range(4000)]
    splits = [split_of(text, PARAMS) for text in texts]
    share = {name: splits.count(name) / len(texts) for name in set(splits)}
    wanted = {"sft_train": 0.28, "sft_validation": 0.12, "test": 0.2}
    wanted |= {"preference_train": 0.28, "preference_validation": 0.12}
    assert share == pytest.approx(wanted, abs=0.03)
    other = replace(PARAMS, sft_share=0.1, preference_share=0.7, validation_share=0.1)
    assert [s == "test" for s in splits] == [split_of(text, other) == "test" for text in texts]
    assert splits != [split_of(text, replace(PARAMS, seed=1)) for text in texts]


def test_records_of_each_file():
    rows = [row(f"question {i}", ("a", 9), ("b", 5), ("c", 1), source=f"s{i % 2}") for i in range(60)]
    done = prepare(rows, PARAMS)
    assert empty_split(done, PARAMS) is None
    keys = {name: set(records[0]) for name, records in done.files.items()}
    head = {"id", "source", "prompt"}
    assert keys["sft_train"] == keys["sft_validation"] == head | {"completion"}
    assert keys["preference_train"] == head | {"chosen", "rejected", "score_chosen", "score_rejected"}
    assert keys["prompts_train"] == head
    assert keys["test"] == head | {"responses"}
    for records in done.files.values():
        assert len({r["id"] for r in records}) == len(records)
    pair = done.files["preference_train"][0]
    assert pair["chosen"] == [{"role": "assistant", "content": "a"}]
    summary = report(done, PARAMS, {})["splits"]["preference_train"]
    assert summary["rows"] == 3 * summary["prompts"] == sum(summary["rows_by_source"].values())
    assert summary["mean_score_gap"] == pytest.approx((4 + 8 + 4) / 3)


def test_prompts_without_a_pair_are_counted_and_kept_for_ppo():
    rows = [row(f"question {i}", ("a", 5), ("b", 5)) for i in range(60)]
    done = prepare(rows, PARAMS)
    assert done.files["preference_train"] == []
    held = done.split_prompts["preference_train"] + done.split_prompts["preference_validation"]
    assert done.no_pair == {"tie": {"s": held}}
    assert len(done.files["prompts_train"]) == done.split_prompts["preference_train"] > 0
    assert empty_split(done, PARAMS).startswith("prepare.min_score_gap: no pair in preference_train")


@pytest.mark.parametrize(
    ("count", "changes", "field"),
    [
        (60, {"sft_responses": "above_score", "sft_min_score": 9.5}, "sft_min_score"),
        (60, {"validation_share": 1e-6}, "validation_share"),
        (60, {"sft_share": 1e-6, "preference_share": 0.799999}, "sft_share"),
        (60, {"test_share": 1e-6, "preference_share": 0.599999}, "test_share"),
        (0, {}, "source"),
    ],
)
def test_an_empty_split_names_the_param(count, changes, field):
    params = replace(PARAMS, **changes)
    done = prepare([row(f"question {i}") for i in range(count)], params)
    assert f".{field}: " in empty_split(done, params)


def test_all_rows_foreign_names_the_languages():
    assert empty_split(prepare([row(FRENCH)], ENGLISH), ENGLISH).startswith("prepare.languages: no row of 1 is left")


def test_files_are_the_outs_of_the_stage():
    assert list(prepare([], PARAMS).files) == list(FILES)


def write_params(folder, load=None, prepare=None):
    """A params.yaml of the two stages in `folder`."""
    plain = {"source": "ultrafeedback_binarized", "path": "raw.jsonl", "revision": None, "max_rows": None}
    sections = {
        "policy": "ppo",
        "load": {**plain, "instructions": 10, "seed": 0, **(load or {})},
        "prepare": {**asdict(ENGLISH), **(prepare or {})},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(sections))


def run_stage(name, folder, hash_seed="0"):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-m", f"stages.{name}"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def write_raw(folder, count=80):
    """A raw file of `count` different prompts, each with a near-duplicate, and a few faulty records."""
    records = []
    for i in range(count):
        record = {"prompt": f"What is thing {i}?", "chosen": "A thing.", "rejected": "No.", "score_chosen": 8}
        records += [
            {**record, "score_rejected": i % 9},
            {**record, "prompt": f"what is THING, {i}", "score_rejected": 1},
        ]
    records += [{"prompt": "no answers"}, {**records[0], "prompt": FRENCH}, {**records[0], "prompt": " "}, 3]
    (folder / "raw.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def run_both(folder, hash_seed="0"):
    """Run the two stages; returns the bytes of every file they wrote."""
    for name in ("load", "prepare"):
        done = run_stage(name, folder, hash_seed)
        assert (done.returncode, done.stderr) == (0, "")
    return {
        str(p.relative_to(folder)): p.read_bytes() for top in ("data", "metrics") for p in (folder / top).rglob("*.*")
    }


def splits_of_prompts(files):
    """The splits in which each normalised prompt lies."""
    places = {}
    for name in FILES:
        for line in files[f"data/splits/{name}.jsonl"].decode().split("\n")[:-1]:
            places.setdefault(normalise(json.loads(line)["prompt"]), set()).add(name.replace("prompts", "preference"))
    return places


def test_both_stages_on_a_small_file(tmp_path):
    write_raw(tmp_path)
    write_params(tmp_path)
    files = run_both(tmp_path)
    assert set(files) == {
        "data/raw/rows.jsonl",
        "data/raw/rejected.json",
        "metrics/data.json",
        *(f"data/splits/{name}.jsonl" for name in FILES),
    }
    metrics = json.loads(files["metrics/data.json"])
    assert metrics["rejected_by_load"] == {
        "empty_prompt": {"ultrafeedback_binarized": 1},
        "malformed": {"ultrafeedback_binarized": 2},
    }
    assert metrics["dropped_rows"] == {
        "duplicate_prompt": {"ultrafeedback_binarized": 80},
        "foreign_prompt": {"ultrafeedback_binarized": 1},
    }
    assert (metrics["rows_in"], metrics["rows_kept"]) == (161, 80)
    places = splits_of_prompts(files)
    assert len(places) == 80
    assert all(len(splits) == 1 for splits in places.values())
    assert "No." in files["data/splits/sft_train.jsonl"].decode()
    assert run_both(tmp_path, hash_seed="1") == files


@pytest.mark.skipif(not REAL.exists(), reason="the shared sample is not here")
def test_both_stages_on_real_data(tmp_path):
    write_params(tmp_path, load={"path": os.path.relpath(REAL, tmp_path)})
    files = run_both(tmp_path)
    metrics = json.loads(files["metrics/data.json"])
    source = "ultrafeedback_binarized"
    assert metrics["rows_in"] == 1000
    assert metrics["rejected_by_load"] == {"completion_empty": {source: 3}}
    assert 40 < metrics["dropped_rows"]["foreign_prompt"][source] < 100
    assert metrics["rows_kept"] + sum(c[source] for c in metrics["dropped_rows"].values()) == 1000
    assert all(len(splits) == 1 for splits in splits_of_prompts(files).values())
    splits = b"".join(files[f"data/splits/{name}.jsonl"] for name in FILES)
    assert all(f'"content": "{text}"' in splits.decode() for text in ("No", "Yes", "Saigon", "13"))


@pytest.mark.parametrize(
    ("stage", "changes", "start"),
    [
        ("load", {"max_row": 3}, "params.yaml: load.max_row: unknown key; did you mean load.max_rows?"),
        ("load", {"max_rows": "many"}, "params.yaml: load.max_rows: must be a whole number"),
        ("load", {"path": "nowhere.jsonl"}, "params.yaml: load.path: no such file 'nowhere.jsonl'"),
        ("load", {"path": None}, "params.yaml: load.revision: must be a commit"),
        ("load", {"source": "ultrafeedback"}, "params.yaml: load.source: no usable row"),
        ("load", {"path": "params.yaml"}, "params.yaml: line 1: not a line of JSON"),
        ("prepare", {"pair_rul": "all"}, "params.yaml: prepare.pair_rul: unknown key"),
        ("prepare", {"seed": 0.5}, "params.yaml: prepare.seed: must be a whole number"),
        ("prepare", {"test_share": 0.3}, "params.yaml: prepare.sft_share: sft_share + preference_share"),
        ("prepare", {"test_share": 0.0}, "params.yaml: prepare.test_share: must be above 0"),
        ("prepare", {"languages": ["english"]}, "params.yaml: prepare.languages: no language 'english'"),
        ("prepare", {"sft_responses": "above_score"}, "params.yaml: prepare.sft_min_score: must be set"),
        ("prepare", {"min_score_gap": 99}, "params.yaml: prepare.min_score_gap: no pair in preference_train"),
    ],
)
def test_faulty_params_end_in_one_line(tmp_path, stage, changes, start):
    write_raw(tmp_path)
    write_params(tmp_path)
    if "min_score_gap" in changes:
        run_both(tmp_path)
    write_params(tmp_path, **{stage: changes})
    done = run_stage(stage, tmp_path)
    assert done.returncode != 0
    assert done.stderr.startswith(start)
    assert done.stderr.count("\n") == 1


def test_prepare_before_load_says_what_to_run(tmp_path):
    write_params(tmp_path)
    done = run_stage("prepare", tmp_path)
    assert done.returncode != 0
    assert done.stderr.startswith("data/raw/rejected.json: cannot be read")
    assert done.stderr.count("\n") == 1


def test_data_stages_import_nothing_heavy():
    heavy = {"torch", "transformers", "datasets", "pandas", "py3langid"}
    check = f"import sys, stages.load, stages.prepare; print(*{heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
