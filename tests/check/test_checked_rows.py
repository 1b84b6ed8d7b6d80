"""What the check says of the rows at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checked import save_model, told, with_values, write_rows
from shipped_params import shipped

from rlhf_lib.check import __main__ as command

pytestmark = pytest.mark.usefixtures("folder")

RAISE = "raise it to about"  # at 4 bytes a token, as there is no tokenizer yet


def test_the_demo_and_good_rows_of_ones_own_have_no_fault():
    assert command.check(shipped()) == ([], [])
    assert told(write_rows(300)) == []


def test_more_instructions_than_the_demo_has_are_told():
    assert told({"load.instructions": 5166}) == []
    fault = "load.instructions: must be at most 5166, which is all that the demo has; got 5167"
    assert told({"load.instructions": 5167}) == [fault]


def test_shares_that_leave_splits_small_are_a_note():
    found, notes = command.check(with_values({**write_rows(6), "prepare.validation_share": 0.01}))
    assert found == []
    assert any(note.startswith("no prompt was left for ") and "validation" in note for note in notes)
    assert any(note.startswith("fewer than 30 prompts in ") and "test 1" in note for note in notes)


def test_lengths_that_drop_most_pairs_are_told():
    changes = {**write_rows(300, words=60), "reward.max_length": 40, "judge.max_length": 70}
    (fault,) = told(changes)
    # 76 of an answer's 303 bytes, 4 of its prompt's, 3 of the template: up to the next multiple of 16
    assert fault.startswith("reward.max_length: ") and f"pairs are longer than 40 tokens; {RAISE} 96, or " in fault


def test_limits_that_drop_most_prompts_are_told():
    save_model("mine")
    changes = {"prepare.tokenizer_name_or_path": "./mine", "prepare.max_prompt_tokens": 3}
    faults = told({**write_rows(450), **changes})
    assert faults == [] or faults[0].startswith("prepare.max_prompt_tokens: ")
    assert told({**write_rows(300), **changes}), "every row is dropped"


def test_long_answers_are_counted_among_the_answers():
    save_model("mine")
    changes = {"prepare.tokenizer_name_or_path": "./mine", "prepare.max_response_tokens": 100}
    rows = [
        {"prompt": f"Tell me of {n}.", "responses": ["good", "fair", "bad", "long " * 200], "scores": [4, 3, 2, 1]}
        for n in range(300)
    ]
    few = [{**row, "responses": [f"{text}{n}" for text in ("long " * 200, "long " * 99)]} for n, row in enumerate(rows)]
    for written in (rows, [{**row, "scores": [2, 1]} for row in few]):
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
        faults = told({"load.sources": [{"reader": "file", "path": "rows.jsonl"}], **changes})
        # a quarter of 1,200 answers, or all of 600
        assert faults == [] if written is rows else faults != []


def test_lengths_of_a_ranking_are_those_of_its_answers():
    rows = [
        {"prompt": f"Tell me of {n}.", "responses": ["good", "fair", "long " * 99], "scores": [3, 2, 1]}
        for n in range(300)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"load.sources": [{"reader": "file", "path": "rows.jsonl"}], "reward.max_length": 50}
    judge = {"judge.max_length": 150, "reference.max_length": 150, "prepare.min_score_gap": 0.0}
    # two of three pairs have the long answer, and one of three answers is it
    (fault,) = told({**changes, **judge})
    assert fault.startswith("reward.max_length: ") and "pairs are longer than 50 tokens" in fault
    assert told({**changes, **judge, "reward.loss_type": "ranking"}) == []


def test_the_first_records_do_not_speak_for_the_others():
    source = {"reader": "file", "path": "rows.jsonl"}
    Path("rows.jsonl").write_text("".join(json.dumps({"x": n}) + "\n" for n in range(450)))
    (fault,) = told({"load.sources": [source]})
    assert fault.startswith("load.sources[0]: no usable row for reader file (rejected: no_known_column 450; ")
    rows = [{"prompt": f"Tell me of {n}.", "completion": f"good {n}"} for n in range(500)]
    with Path("rows.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert told({"load.sources": [source]}) == []
    mapped = {"load.sources": [{**source, "columns": {"system": "rules"}}]}
    (fault,) = told(mapped)
    assert fault.startswith("load.sources[0].columns.system: no record has 'rules'; there are: ")
    with Path("rows.jsonl").open("a") as file:
        file.write(json.dumps({**rows[0], "rules": "Be brief."}) + "\n")
    assert told(mapped) == []


def test_line_ends_of_unicode_in_a_text_are_no_lines():
    rows = [{"prompt": f"Tell me\u2028 of {n}.", "completion": f"good\x85{n}"} for n in range(30)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert told({"load.sources": [{"reader": "file", "path": "rows.jsonl"}]}) == []


def test_stages_that_leave_themselves_out_have_no_batch_to_fill():
    rows = [{"prompt": f"Tell me of {n}.", "completion": f"good {n}"} for n in range(300)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, notes = command.check(with_values({"load.sources": [{"reader": "file", "path": "rows.jsonl"}]}))
    assert found == [] and not any("batch_size" in note for note in notes)
    assert any(note.startswith("left out: ") for note in notes)


def test_batches_larger_than_the_rows_are_a_note():
    changes = {"dpo.per_device_train_batch_size": 999, "judge.per_device_train_batch_size": 8}
    found, notes = command.check(with_values({**write_rows(300), **changes}))
    sizes = [note for note in notes if "batch_size" in note]
    assert found == [] and len(sizes) == 1
    assert sizes[0].startswith("dpo.per_device_train_batch_size: 999, but there are ")


@pytest.mark.parametrize(("words", "noted"), [(50, True), (30, False)])
def test_answers_that_are_longer_than_what_ppo_samples_are_a_note(words, noted):
    # words of 4 bytes and a space, and a number: 50 are about 63 tokens, 30 are 38
    changes = {**write_rows(300, words), "ppo.response_length": 48, "evaluate.max_new_tokens": 120}
    found, notes = command.check(with_values(changes))
    lengths = [note for note in notes if "response_length" in note]
    assert found == [] and bool(lengths) == noted
    if noted:
        (note,) = lengths
        assert note.startswith(
            "ppo.response_length: 100 % of the answers that SFT teaches are longer, and would be cut"
        )
        assert "PPO would learn brevity first; raise it to 80, or teach shorter ones" in note


def test_answers_that_prepare_will_leave_out_are_no_note():
    bounded = {"prepare.tokenizer_name_or_path": "nobody/nothing", "prepare.max_response_tokens": 40}
    _, notes = command.check(with_values({**write_rows(300, 50), **bounded, "ppo.response_length": 48}))
    assert not any("response_length" in note for note in notes)


def test_batches_of_stages_that_are_left_out_are_no_note():
    rows = [{"prompt": f"Tell me of {n}.", "completion": f"good {n}"} for n in range(300)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, notes = command.check(with_values({"load.sources": [{"reader": "file", "path": "rows.jsonl"}]}))
    assert found == [] and any(note.startswith("left out: reward, judge, dpo, kto: ") for note in notes)
    assert not [note for note in notes if "batch_size" in note]


def test_a_policy_that_is_not_trained_is_a_note():
    found, notes = command.check(with_values({"methods.ppo": False}))
    assert found == [] and [note for note in notes if note.startswith("policy: methods.ppo is false")]
    assert not [note for note in command.check({**with_values({}), "policy": "sft"})[1] if note.startswith("policy")]


def test_a_broken_file_is_one_line():
    Path("rows.jsonl").write_text('{"prompt": 1\n')
    (fault,) = told({"load.sources": [{"reader": "file", "path": "rows.jsonl"}]})
    assert fault.startswith("load.sources: rows.jsonl: line 1: not JSON")


def test_a_file_does_not_speak_for_a_source_on_the_hub():
    """Neither for what is left out nor for how long the rows are."""
    rows = [{"prompt": f"Tell me {'more ' * 200} of {n}.", "completion": f"good {n}"} for n in range(300)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"reader": "file", "path": "rows.jsonl"}, {"reader": "hh"}]
    mixture = {"file": {"roles": ["sft", "test"]}, "hh": {"roles": ["preference", "prompts"]}}
    assert command.check(with_values({"load.sources": sources, "prepare.mixture": mixture})) == ([], [])
    (fault,) = told({"load.sources": sources[:1]})
    assert fault.startswith("sft.max_length: ") and f" prompts fill its 128 tokens; {RAISE} 272, or " in fault
