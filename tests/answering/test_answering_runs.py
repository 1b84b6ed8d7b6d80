"""The command on tiny models: its columns beside the libraries' own, and what a stop leaves."""

import csv
import itertools
import json
import logging
import shutil
from pathlib import Path

import pytest
import sacrebleu
import torch
import transformers
from project import DEMO, ROOT
from rouge_score.rouge_scorer import RougeScorer
from tiny_models import TEXTS
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_lib.answering import answers as answering
from rlhf_lib.answering import policy
from rlhf_lib.answering.__main__ import main
from rlhf_lib.common import environment
from rlhf_lib.models.chat import prompt_ids
from rlhf_lib.scoring.reward_model import RewardModel

REFERENCE = "the cat and the dog"
PROMPTS = [*TEXTS[:5], "A cat?", "Describe the sky, the dog and the cat in one word or in two."]


@pytest.fixture
def generate(tiny, tmp_path, monkeypatch, capsys):
    """A function that runs the command on a file of prompts and gives the rows, and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "prepare", lambda offline=True: None)  # the libraries are imported here
    params = DEMO.read_text().replace("precision: auto", "precision: fp32").replace("device: auto", "device: cpu")
    (tmp_path / "params.yaml").write_text(params)
    shutil.copytree(tiny.policy, "models/dpo")
    shutil.copytree(tiny.reward, "models/reward")
    rows = [{"prompt": text, "reference": REFERENCE if i % 2 else None, "id": i} for i, text in enumerate(PROMPTS)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def generate(*words, out="answers.jsonl"):
        main(["models/dpo", "prompts.jsonl", "--max_new_tokens=10", "--out", out, *words])
        assert not (tmp_path / f"{out}.part").exists()
        with open(out, newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file)) if out.endswith(".csv") else [json.loads(line) for line in file]
        return found, capsys.readouterr().out

    return generate


def length(prompt):
    """Tokens of a prompt of one turn."""
    return len(prompt_ids(AutoTokenizer.from_pretrained("models/dpo"), [{"role": "user", "content": prompt}]))


def plainly(folder, prompt, **options):
    """The answer of a prompt alone, by transformers: text, tokens, and whether it ended."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)["input_ids"]
    read = torch.tensor([ids])
    said = model.generate(read, attention_mask=torch.ones_like(read), max_new_tokens=10, **options)[:, len(ids) :]
    stops = model.generation_config.eos_token_id
    ended = bool(torch.isin(said[0], torch.tensor(stops)).any())
    return tokenizer.decode(said[0], skip_special_tokens=True), said.size(1), ended


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
        {"no_repeat_ngram_size": 2},
        {"repetition_penalty": 1.5, "min_new_tokens": 3},
        {"encoder_no_repeat_ngram_size": 2, "suppress_tokens": [5, 6, 7]},
        {"exponential_decay_length_penalty": (2, 2.0), "renormalize_logits": True},
    ],
    ids=lambda options: "-".join(options) or "greedy",
)
def test_a_batch_answers_as_each_prompt_alone(generate, options):
    words = [f"--{name}={json.dumps(value)}" for name, value in options.items()]
    rows, _ = generate(*words, "--batch_size=64")
    expected = [plainly("models/dpo", prompt, do_sample=False, **options) for prompt in PROMPTS]
    assert [(row["answer"], row["tokens"], row["finished"]) for row in rows] == expected
    assert [row["row"] for row in rows] == [*range(1, 8)] and [row["prompt"] for row in rows] == PROMPTS


@pytest.mark.parametrize("options", [{"no_repeat_ngram_size": 1}, {"encoder_repetition_penalty": 3.0}])
def test_padding_that_an_answer_may_have_is_not_read_as_if_it_were_said(generate, options):
    """Where the EOS pads."""
    tokenizer, model = AutoTokenizer.from_pretrained("models/dpo"), AutoModelForCausalLM.from_pretrained("models/dpo")
    tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.eos_token_id
    tokenizer.save_pretrained("models/dpo")
    model.save_pretrained("models/dpo")
    ((name, value),) = options.items()
    rows, _ = generate(f"--{name}={value}", "--batch_size=64")
    expected = [plainly("models/dpo", prompt, do_sample=False, **options) for prompt in PROMPTS]
    assert [row["answer"] for row in rows] == [text for text, *_ in expected]


def test_columns_are_those_of_the_models_and_libraries(generate):
    rows, said = generate("--scores=models/reward,rewards.examples:brevity", out="answers.csv")
    assert [*rows[0]] == [
        *("row", "id", "prompt", "reference", "answer", "finished", "tokens"),
        *("reward", "brevity", "bleu", "rouge1", "rouge2", "rougeL"),
    ]
    model, scorer = RewardModel.load("models/reward"), RougeScorer(["rouge1", "rouge2", "rougeL"])
    for row, prompt in zip(rows, PROMPTS, strict=True):
        answer = row["answer"].removeprefix("'")
        assert float(row["reward"]) == pytest.approx(
            model([[{"role": "user", "content": prompt}]], [answer])[0], abs=1e-5
        )
        assert float(row["brevity"]) == 0
        if not row["reference"]:
            assert (row["bleu"], row["rouge1"], row["rougeL"]) == ("", "", "")
            continue
        assert float(row["bleu"]) == float(f"{sacrebleu.sentence_bleu(answer, [REFERENCE]).score:.6g}")
        rouge = scorer.score(REFERENCE, answer)
        assert all(float(row[name]) == float(f"{rouge[name].fmeasure:.6g}") for name in rouge)
    assert "7 to 7 prompts, 3 of them beside a reference" in said
    rewards = [float(row["reward"]) for row in rows]
    assert f"reward      {sum(rewards) / 7:.4g} ± " in said
    beside = [row for row in rows if row["reference"]]
    corpus = sacrebleu.corpus_bleu([row["answer"].removeprefix("'") for row in beside], [[REFERENCE] * 3]).score
    assert f"corpus BLEU {corpus:.4g} over 3 prompts\n" in f"{said}\n"


def test_the_seed_alone_decides_sampled_answers(generate):
    sampled = ["--temperature=1.5", "--num_return_sequences=2", "--batch_size=4"]
    (first, _), (again, _), (other, _) = generate(*sampled), generate(*sampled), generate(*sampled, "--seed=1")
    assert first == again != other
    assert [(row["row"], row["draw"]) for row in first] == [*itertools.product(range(1, 8), range(2))]
    assert any(a["answer"] != b["answer"] for a, b in zip(first[::2], first[1::2], strict=True))


def test_texts_end_answers(generate):
    free, _ = generate()
    letter = free[0]["answer"][2]
    rows, _ = generate(f"--stop_strings={json.dumps([letter])}")
    for row, before in zip(rows, free, strict=True):
        place = before["answer"].find(letter)
        assert place < 0 or (row["finished"] and letter in row["answer"] and before["answer"].startswith(row["answer"]))
        assert letter not in row["answer"][: place if place >= 0 else None]


@pytest.mark.parametrize("sampled", [[], ["--top_k=20", "--num_beams=2"]])
def test_a_command_that_was_stopped_goes_on(generate, monkeypatch, sampled):
    words = [*sampled, "--batch_size=2"]
    whole, _ = generate(*words)
    (own, calls) = (answering.by_library, [])

    def stops_at(number):
        def by_library(model, tokenizer, prompts, *arguments, **options):
            calls.append(len(prompts))
            if len(calls) == number:
                raise KeyboardInterrupt
            return own(model, tokenizer, prompts, *arguments, **options)

        return by_library

    monkeypatch.setattr(answering, "by_library", stops_at(3))
    old = Path("answers.jsonl").read_bytes()
    with pytest.raises(SystemExit) as ended:
        generate(*words)
    assert ended.value.code == 130 and Path("answers.jsonl").read_bytes() == old  # the last whole file stands
    with open("answers.jsonl.part", "ab") as part:
        part.write(b'[2, [["ha')  # as a kill leaves it
    made = sum(calls[:2])
    monkeypatch.setattr(answering, "by_library", stops_at(100))
    assert generate(*words)[0] == whole
    assert sum(calls[3:]) == len(PROMPTS) - made


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("prompts.jsonl/a.jsonl", "cannot be written: "),
        ("/proc/a.jsonl", "cannot be written: "),
        ("a" * 300 + ".csv", "cannot be written: "),
        ("data/splits/test.jsonl", r"is made by stage prepare \(dvc.yaml\)"),
        ("metrics/a.jsonl", r"lies in metrics, where stage prepare writes \(dvc.yaml\)"),
    ],
)
def test_an_out_that_cannot_or_must_not_be_is_told_before_the_model_loads(generate, monkeypatch, out, words):
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    monkeypatch.setattr(policy, "load", None)
    with pytest.raises(SystemExit, match=f"^{out}: {words}.*; give another OUT$"):
        generate(out=out)


def test_rows_that_have_ended_do_not_make_transformers_warn(generate, caplog):
    """In a batch without padding, whose mask transformers drops, so that models take what fills them up for padding."""
    same = [text for text in TEXTS if length(text) == length(TEXTS[0])]
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in same))
    words = ["--temperature=2", "--num_return_sequences=8", "--exponential_decay_length_penalty=[2, 1.3]"]
    logger = logging.getLogger("transformers")
    transformers.logging.enable_propagation()
    logger.warning_once.cache_clear()
    try:
        rows, _ = generate(*words)
        assert len({row["tokens"] for row in rows}) > 1
        assert "attention_mask" not in caplog.text
        logging.getLogger("transformers.modeling_utils").warning("passing in an `attention_mask`")
        assert "attention_mask" in caplog.text  # by others it is still told
    finally:
        transformers.logging.disable_propagation()


def test_what_was_made_with_other_inputs_is_not_taken(generate, monkeypatch, capsys):
    def stops(*arguments, **options):
        raise KeyboardInterrupt

    own = answering.by_library
    monkeypatch.setattr(answering, "by_library", stops)
    with pytest.raises(SystemExit):
        generate("--seed=3")
    monkeypatch.setattr(answering, "by_library", own)
    rows, said = generate()
    assert "answers.jsonl.part: of another command or of other inputs; it is begun anew" in said
    assert rows == generate()[0]


def test_prompts_that_do_not_fit_are_told_or_cut(generate):
    with open("prompts.jsonl", "a") as file:
        file.write(json.dumps({"prompt": "the cat in one word " * 30}) + "\n")
    with pytest.raises(
        SystemExit, match=r"prompts\.jsonl: line 8: the prompt has \d+ tokens, and 54 fit beside 10 new"
    ):
        generate()
    whole = len(
        prompt_ids(
            AutoTokenizer.from_pretrained("models/dpo"), [{"role": "user", "content": "the cat in one word " * 30}]
        )
    )
    rows, said = generate("--too_long=cut")
    assert len(rows) == 8 and "1 of 8 prompts are longer than 54 tokens" in said and "prompt_tokens_cut" not in said
    assert [row["prompt_tokens_cut"] for row in rows] == [*[0] * 7, whole - 54]
    twice, _ = generate("--too_long=cut", "--num_beams=2", "--num_return_sequences=2", out="answers.csv")
    assert [row["prompt_tokens_cut"] for row in twice] == [*["0"] * 14, *[str(whole - 54)] * 2]
    with pytest.raises(SystemExit, match="64 new tokens leave no room for a prompt.*lower max_new_tokens"):
        generate("--max_new_tokens=64")


def test_functions_get_the_columns_that_they_name(generate, tmp_path, monkeypatch):
    (tmp_path / "mine_for_answers.py").write_text(
        "def odd(id, completion_ids, **columns):\n"
        "    return [float(len(c)) if i % 2 else None for c, i in zip(completion_ids, id, strict=True)]\n"
        "def lacks(completions, solution, **columns):\n"
        "    return [0.0] * len(completions)\n"
        "def strict(completions, id):\n"
        "    return [0.0] * len(completions)\n"
        "def bleu(completions, **columns):\n"
        "    return [1.0] * len(completions)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows, _ = generate("--scores=mine_for_answers:odd,mine_for_answers:bleu")
    assert [row["odd"] for row in rows] == [row["tokens"] if row["id"] % 2 else None for row in rows]
    assert all(row["bleu_score"] == 1.0 for row in rows) and rows[0]["bleu"] is None
    with pytest.raises(SystemExit, match="--scores: lacks asks for solution, a column that the prompts' file has not"):
        generate("--scores=mine_for_answers:lacks")
    with pytest.raises(SystemExit, match="--scores: strict takes no prompts, with which it is called; add"):
        generate("--scores=mine_for_answers:strict")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--suppress_tokens=[3, 100000]"], r"--suppress_tokens: 100000: the model's tokens are 0 to \d+"),
        (["--bad_words_ids=[[3], [4, 100000]]"], "--bad_words_ids: 100000: the model's"),
        (["--temperature=1", f"--suppress_tokens={[*range(295)]}"], "transformers cannot decode with these options: "),
    ],
)
def test_options_that_the_model_cannot_serve_are_told(generate, words, line):
    with pytest.raises(SystemExit, match=line) as told:
        generate(*words)
    assert "\n" not in told.value.code


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("models/none", "models/none: no such directory"),
        ("models/reward", "models/reward: a reward model, which gives no"),
    ],
)
def test_a_model_that_cannot_answer_is_told(generate, tmp_path, model, line):
    with pytest.raises(SystemExit, match=line):
        main([model, "prompts.jsonl"])
    assert not list(tmp_path.glob("answers*"))
