import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import yaml
from project import ROOT
from small_rows import FRENCH, PARAMS, as_loaded, places, row, source, user

from rlhf_lib.common.rows import normalise, write_jsonl
from rlhf_lib.data.prepare.prepare import prepare
from rlhf_lib.data.prepare.records import FILES

REAL = ROOT.parent / "shared/data/ultrafeedback_binarized_1k.jsonl"
ENGLISH = replace(PARAMS, languages=["en"])
SOURCE = "ultrafeedback_binarized"


def write_params(folder, load=None, prepare=None, params=ENGLISH):
    """A params.yaml of the two stages in `folder`."""
    plain = {"sources": [{"reader": SOURCE, "path": "raw.jsonl"}], "instructions": 10, "num_proc": 1, "seed": 0}
    sections = {"policy": "ppo", "load": plain | (load or {}), "prepare": asdict(params) | (prepare or {})}
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
            {**record, "score_rejected": i % 8},
            {**record, "prompt": f"what is THING, {i}", "score_rejected": 1},
        ]
    records += [{"prompt": "no answers"}, {**records[0], "prompt": FRENCH}, {**records[0], "prompt": " "}, 3]
    write_jsonl(folder / "raw.jsonl", records[:-1])
    with open(folder / "raw.jsonl", "a") as file:
        file.write("3\n")


def written(folder):
    """The bytes of every file that the stages wrote."""
    files = (path for top in ("data", "metrics") for path in (folder / top).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def run_both(folder, hash_seed="0"):
    for name in ("load", "prepare"):
        done = run_stage(name, folder, hash_seed)
        assert (done.returncode, done.stderr) == (0, "")
    return written(folder)


def lines(data):
    return [json.loads(line) for line in data.decode().split("\n")[:-1]]


def parts(files, params=PARAMS):
    """The parts in which each normalised prompt lies."""
    return places({name: lines(files[f"data/splits/{name}.jsonl"]) for name in FILES}, params)


def fault(done):
    """The one line that a stage ended with."""
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_both_stages_on_a_small_file(tmp_path):
    write_raw(tmp_path)
    write_params(tmp_path)
    files = run_both(tmp_path)
    assert set(files) == {
        *(f"data/raw/{name}" for name in ("rows.jsonl", "rejected.jsonl", "sources.json")),
        *(f"data/splits/{name}.jsonl" for name in FILES),
        "data/rejected.jsonl",
        "metrics/data.json",
    }
    metrics = json.loads(files["metrics/data.json"])
    assert metrics["rejected_by_load"] == {"empty_prompt": {SOURCE: 1}, "malformed": {SOURCE: 2}}
    assert metrics["dropped_rows"] == {"duplicate_prompt": {SOURCE: 80}, "foreign_prompt": {SOURCE: 1}}
    assert (metrics["rows_in"], metrics["rows_kept"]) == (161, 80)
    places = parts(files)
    assert len(places) == 80 and all(len(where) == 1 for where in places.values())
    assert "No." in files["data/splits/sft_train.jsonl"].decode()
    rows = {name: len(lines(files[f"data/splits/{name}.jsonl"])) for name in FILES}
    assert {name: metrics["splits"][name]["rows"] for name in FILES} == rows
    assert run_both(tmp_path, hash_seed="1") == files


def test_what_is_rejected_is_told_with_its_reason(tmp_path):
    write_raw(tmp_path)
    write_params(tmp_path)
    files = run_both(tmp_path)
    rejected = lines(files["data/rejected.jsonl"])
    assert {tuple(line) for line in rejected} == {("stage", "source", "reason", "place", "text")}
    of_load = [line for line in rejected if line["stage"] == "load"]
    assert of_load == lines(files["data/raw/rejected.jsonl"]) == rejected[:3]
    assert [(line["reason"], line["place"]) for line in of_load] == [
        ("malformed", "raw.jsonl: line 161"),
        ("empty_prompt", "raw.jsonl: line 163"),
        ("malformed", "raw.jsonl: line 164"),
    ]
    foreign, *duplicates = rejected[3:]
    assert (foreign["stage"], foreign["reason"], foreign["text"]) == ("prepare", "foreign_prompt", FRENCH)
    ids = {record["id"] for record in lines(files["data/raw/rows.jsonl"])}
    assert {line["place"] for line in rejected[3:]} <= ids
    assert {line["reason"] for line in duplicates} == {"duplicate_prompt"}
    assert {line["text"] for line in duplicates} == {f"what is THING, {i}" for i in range(80)}


def raw(folder, rows, *sources):
    """The outs of stage `load` in `folder`."""
    write_jsonl(folder / "data/raw/rows.jsonl", rows)
    write_jsonl(folder / "data/raw/rejected.jsonl", [])
    (folder / "data/raw/sources.json").write_text(json.dumps(as_loaded(sources or [source()])))


def many_rows(count=450):
    rows = []
    for number in range(count):
        text = f"Please tell me about the thing of number {number % 300} in a few plain words"
        scored = [(f"It is {word}.", float(score)) for score, word in enumerate(("bad", "fair", "good"))]
        rows.append(row(text, *scored, source="merging" if number % 2 else "s", test=number % 50 == 0))
    return rows


def test_the_splits_are_the_same_with_any_number_of_processes(tmp_path):
    files = {}
    for num_proc in (1, 2):
        folder = tmp_path / str(num_proc)
        folder.mkdir()
        raw(folder, many_rows(), source("merging", 0, merges=True), source("s", 1))
        write_params(folder, prepare={"num_proc": num_proc, "minhash_threshold": 0.9})
        done = run_stage("prepare", folder, hash_seed=str(num_proc))
        assert (done.returncode, done.stderr) == (0, "")
        files[num_proc] = written(folder)
    assert files[1] == files[2]
    assert len(lines(files[1]["data/splits/test.jsonl"])) > 1


def test_a_mixture_through_both_stages(tmp_path):
    """Pairs with a test set, demonstrations, and prompts: each for what it is good for, no prompt for two."""
    texts = [f"What do you say of thing {n} ?" for n in range(150)]
    pair = {"chosen": "A good answer.", "rejected": "A bad one."}
    write_jsonl(tmp_path / "test.jsonl", [{"prompt": text, **pair} for text in texts[:30]])
    write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": text.upper(), **pair} for text in texts[20:90]])
    write_jsonl(tmp_path / "shown.jsonl", [{"prompt": text, "response": "Much."} for text in texts[80:150]])
    write_jsonl(tmp_path / "asked.jsonl", [{"prompt": f"{text}!"} for text in [*texts[25:], "And ?", "And now ?"]])
    names = {"test": "test.jsonl", "pairs": "pairs.jsonl", "shown": "shown.jsonl", "asked": "asked.jsonl"}
    sources = [{"reader": "file", "name": name, "path": path, "test": name == "test"} for name, path in names.items()]
    roles = {"pairs": ["preference", "prompts"], "test": ["preference"], "shown": ["sft"], "asked": ["prompts"]}
    mixture = {name: {"roles": roles[name]} for name in names}
    shares = {"preference_share": 0.25, "judge_share": 0.2}
    write_params(tmp_path, load={"sources": sources}, prepare={"mixture": mixture, "min_score_gap": 2.0, **shares})
    files = run_both(tmp_path)
    found = {name.partition("_")[0]: set() for name in FILES}
    for name in FILES:
        found[name.partition("_")[0]] |= {line["source"] for line in lines(files[f"data/splits/{name}.jsonl"])}
    of_pairs = {name: {"pairs"} for name in ("reward", "groups", "preference", "thumbs", "judge")}
    assert found == {"sft": {"shown"}, **of_pairs, "prompts": {"pairs", "asked"}, "test": {"test", "pairs"}}
    where = parts(files)
    assert all(len(parts) == 1 for parts in where.values())
    assert all(where[normalise(user(text))] == {"test"} for text in texts[:30])
    metrics = json.loads(files["metrics/data.json"])
    assert metrics["dropped_rows"] == {
        "duplicate_prompt": {"pairs": 10, "asked": 125},
        "split_of_another_role": {"pairs": 6, "shown": 4},  # of the ten that both have
    }


@pytest.mark.skipif(not REAL.exists(), reason="the shared sample is not here")
def test_both_stages_on_real_data(tmp_path):
    write_params(tmp_path, load={"sources": [{"reader": SOURCE, "path": os.path.relpath(REAL, tmp_path)}]})
    files = run_both(tmp_path)
    metrics = json.loads(files["metrics/data.json"])
    assert metrics["rows_in"] == 999  # of 1,000: the chosen answer of one is empty, and its rejected one is not used
    assert metrics["rejected_by_load"] == {"response_empty": {SOURCE: 3}, "no_usable_response": {SOURCE: 1}}
    assert 40 < metrics["dropped_rows"]["foreign_prompt"][SOURCE] < 100
    assert metrics["rows_kept"] + sum(c[SOURCE] for c in metrics["dropped_rows"].values()) == 999
    assert all(len(where) == 1 for where in parts(files).values())
    splits = b"".join(files[f"data/splits/{name}.jsonl"] for name in FILES)
    assert all(f'"content": "{text}"' in splits.decode() for text in ("No", "Yes", "Saigon", "13"))


@pytest.mark.parametrize(
    ("stage", "changes", "start"),
    [
        ("load", {"instruction": 3}, "params.yaml: load.instruction: unknown key; did you mean load.instructions?"),
        ("load", {"instructions": "many"}, "params.yaml: load.instructions: must be a whole number"),
        ("load", {"sources": []}, "params.yaml: load.sources: must not be empty"),
        ("load", {"sources": [{"reader": "csv"}]}, "params.yaml: load.sources[0].reader: must be one of demo, "),
        ("load", {"sources": [{"reader": SOURCE, "path": "nowhere.jsonl"}]}, "nowhere.jsonl: no such file"),
        ("load", {"sources": [{"reader": SOURCE, "path": "a/*.csv"}]}, "a/*.csv: no file matches"),
        (
            "load",
            {"sources": [{"reader": "demo"}, {"reader": "ultrafeedback", "path": "raw.jsonl"}]},
            "params.yaml: load.sources[1]: no usable row for reader ultrafeedback (rejected: malformed ",
        ),
        ("prepare", {"pair_rul": "all"}, "params.yaml: prepare.pair_rul: unknown key"),
        ("prepare", {"seed": 0.5}, "params.yaml: prepare.seed: must be a whole number"),
        ("prepare", {"test_share": 0.3}, "params.yaml: prepare.preference_share: sft_share + reward_share"),
        ("prepare", {"languages": ["english"]}, "params.yaml: prepare.languages: no language 'english'"),
        ("prepare", {"sft_responses": "above_score"}, "params.yaml: prepare.sft_min_score: must be set"),
        ("prepare", {"drop_patterns": ["("]}, "params.yaml: prepare.drop_patterns: '(' is not a regular expression"),
        (
            "prepare",
            {"mixture": {"x": {}}},
            "params.yaml: prepare.mixture.x: no source of that name; there are: merging, s",
        ),
        ("prepare", {"mixture": {"s": {"max_row": 3}}}, "params.yaml: prepare.mixture.s.max_row: unknown key"),
        ("prepare", {"min_score_gap": 99}, "params.yaml: prepare.min_score_gap: no pair in reward_train"),
        ("prepare", {"max_prompt_tokens": 9}, "params.yaml: prepare.tokenizer_name_or_path: must be set"),
        (
            "prepare",
            {"max_prompt_tokens": 9, "tokenizer_name_or_path": ".", "num_proc": 2},
            "params.yaml: prepare.tokenizer_name_or_path: tokenizer.json is not a tokenizer",
        ),
    ],
)
def test_faulty_params_end_in_one_line(tmp_path, stage, changes, start):
    write_raw(tmp_path, count=9)
    if stage == "prepare":
        raw(tmp_path, many_rows(), source("merging"), source("s", 1))
    before = written(tmp_path)
    write_params(tmp_path, **{stage: changes})
    assert fault(run_stage(stage, tmp_path)).startswith(start)
    assert written(tmp_path) == before  # nothing that is half done


def test_a_broken_line_that_a_worker_meets_ends_in_one_line(tmp_path):
    raw(tmp_path, many_rows(), source("merging"), source("s", 1))
    with open(tmp_path / "data/raw/rows.jsonl", "a") as file:
        file.write('{"id": \n')
    before = written(tmp_path)
    write_params(tmp_path, prepare={"num_proc": 2})
    assert fault(run_stage("prepare", tmp_path)).startswith("data/raw/rows.jsonl: line 451: not a line of JSON")
    assert written(tmp_path) == before


@pytest.mark.parametrize("content", [None, "{", "\xff"])
def test_prepare_before_load_says_what_to_run(tmp_path, content):
    write_params(tmp_path)
    if content:
        (tmp_path / "data/raw").mkdir(parents=True)
        (tmp_path / "data/raw/sources.json").write_text(content, encoding="latin-1")
    text = fault(run_stage("prepare", tmp_path))
    assert text.startswith("data/raw/sources.json: cannot be read") and text.endswith("run dvc repro load\n")


def test_a_failure_keeps_the_files_of_the_run_before(tmp_path):
    raw(tmp_path, many_rows(), source("merging"), source("s", 1))
    where = tmp_path / "data/raw", tmp_path / "data/splits", tmp_path / "data/rejected.jsonl"
    prepare(*where, PARAMS)
    before = written(tmp_path)
    with pytest.raises(SystemExit):
        prepare(*where, replace(PARAMS, min_score_gap=99.0))
    assert written(tmp_path) == before


def test_without_limits_no_tokenizer_is_needed(tmp_path):
    raw(tmp_path, many_rows(), source("merging"), source("s", 1))
    where = tmp_path / "data/raw", tmp_path / "data/splits", tmp_path / "data/rejected.jsonl"
    assert prepare(*where, replace(PARAMS, tokenizer_name_or_path="no/such")) == prepare(*where, PARAMS)


def test_data_stages_import_nothing_heavy():
    heavy = {"torch", "transformers", "datasets", "pandas", "pyarrow", "tokenizers", "datasketch", "py3langid"}
    check = f"import sys, stages.load, stages.prepare; print(*{heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
