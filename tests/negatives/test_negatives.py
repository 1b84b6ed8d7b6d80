import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from negative_pairs import COMMIT, pair, params, prompts, said, sample
from taught_standins import OVER, leaning

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.generation.sampling import response_text
from rlhf_lib.models import frozen
from rlhf_lib.negatives import sampling as negatives
from rlhf_lib.negatives.sampling import Sample

# ---- params


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_negatives": 0}, "num_negatives: must be at least 1"),
        ({"temperature": 0}, "temperature: must be above 0"),
        ({"top_k": -1}, "top_k: must be at least 0"),
        ({"top_p": 0.0}, "top_p: must be above 0"),
        ({"top_p": 1.1}, "top_p: must be at most 1"),
        ({"max_new_tokens": 0}, "max_new_tokens: must be at least 1"),
        ({"per_device_eval_batch_size": 0}, "per_device_eval_batch_size: must be at least 1"),
        ({"seed": 0.5}, "seed: must be a whole number"),
        ({"model_name_or_path": 3}, "model_name_or_path: must be a text"),
        *(
            ({"model_name_or_path": model}, "model_name_or_path: not the name of a model; set it to models/sft")
            for model in ("", "gpt2", "owner/name", "owner/name@main", f"owner/name@{COMMIT[1:]}", "module:function")
        ),
    ],
)
def test_a_bad_param_is_told_in_one_line(changes, told):
    with pytest.raises(ParamsError) as error:
        params(**changes)
    assert str(error.value).startswith(f"params.yaml: negatives.{told}") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("models/base", ("models/base", None)),
        ("models/sft", ("models/sft", None)),
        (f"owner/name@{COMMIT}", ("owner/name", COMMIT)),
        ("./mine", ("./mine", None)),
        ("/some/where", ("/some/where", None)),
    ],
)
def test_a_model_is_a_directory_of_the_graph_or_a_hub_model_at_a_commit(model, expected):
    assert params(model_name_or_path=model).name_and_revision == expected


# ---- pairs by hand


def test_added_pairs_follow_those_of_their_prompt():
    human = [pair("a-0", "Good.", 5.0), pair("a-1", "Best.", 8.0), pair("a-2", "Best too.", 8.0), pair("b-0", "B.", 3)]
    samples = {"a": [Sample("one", 4, False), Sample("two", 6, True)], "b": [Sample("three", 2, False)]}
    counts = Counter()
    got = list(negatives.extend(human, samples, counts))
    expected = [
        {**human[1], "id": "a-n0", "rejected": said("one"), "score_rejected": None},
        {**human[1], "id": "a-n1", "rejected": said("two"), "score_rejected": None},
        {**human[3], "id": "b-n0", "rejected": said("three"), "score_rejected": None},
    ]
    assert got == [*human[:3], *expected[:2], human[3], expected[2]]
    assert [list(added) for added in got] == [list(human[0])] * 7  # keys in the same order
    assert negatives.summary(counts) == {
        **{"prompts": 2, "added": 3, "known": 0, "blank": 0, "repeated": 0, "cut": 1},
        "mean_tokens": 4.0,
    }


def test_answers_that_are_no_negatives_are_left_out_and_counted():
    texts = ["Best.", "", "\u200b", "one", "one", "Good.", "Best"]
    human = [pair("a-0", "Good.", 5.0), pair("a-1", " Best.\r\n", 8.0)]
    counts = Counter()
    got = list(negatives.extend(human, {"a": [Sample(text, 2, text == "Best.") for text in texts]}, counts))
    assert [(added["id"], added["rejected"][0]["content"]) for added in got[2:]] == [
        ("a-n3", "one"),
        ("a-n6", "Best"),
    ]
    assert negatives.summary(counts) == {
        **{"prompts": 1, "added": 2, "known": 2, "blank": 2, "repeated": 1, "cut": 0},
        "mean_tokens": 2.0,
    }


def test_a_prompt_of_both_files_is_there_once(tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    write_jsonl(first, [pair("a-0", "A", 2, prompt="A?"), pair("a-1", "A", 2, prompt="A?"), pair("b-0", "B", 2)])
    write_jsonl(second, [pair("c-0", "C", 2, prompt="C?"), pair("b-0", "B", 2)])
    got = negatives.prompts([first, second])
    assert [(key, prompt[0]["content"]) for key, prompt in got.items()] == [("a", "A?"), ("b", "Q?"), ("c", "C?")]


# ---- sampling


def test_samples_depend_on_the_prompt_and_the_seed_alone(project):
    expected = sample("a")
    assert list(expected) == list(prompts()) and {len(drawn) for drawn in expected.values()} == {2}
    drawn = [one for of_prompt in expected.values() for one in of_prompt]
    assert len({one.text for one in drawn}) > 15 and {one.cut for one in drawn} == {True, False}
    assert all(
        one.text == one.text.strip() and 1 <= one.tokens <= 6 and (one.tokens == 6 or not one.cut) for one in drawn
    )
    assert sample("b") == expected and Path("b").read_bytes() == Path("a").read_bytes()
    for size in (1, 64):
        assert sample(f"batches of {size}", per_device_eval_batch_size=size) == expected
    fewer = dict(list(prompts().items())[::-2])
    assert sample("fewer", of=fewer) == {key: expected[key] for key in fewer}
    more = sample("more", num_negatives=3)
    assert {key: drawn[:2] for key, drawn in more.items()} == expected
    assert sample("seed", seed=1) != expected


def test_a_single_token_to_draw_from_is_the_likeliest(project, tokenizer):
    from rlhf_lib.generation.decoding import generate
    from rlhf_lib.generation.sampling import Sampling, random_numbers
    from rlhf_lib.models import loading as models
    from rlhf_lib.models.chat import prompt_ids

    policy = models.load_policy("models/sft")
    ids = [prompt_ids(tokenizer, prompt) for prompt in prompts().values()]
    greedy = Sampling(6, temperature=0.0)
    expected = generate(policy, tokenizer, ids, greedy, random_numbers(len(ids), greedy, 0), 8)
    for name, changes in {"k": {"top_k": 1}, "p": {"top_p": 1e-6}, "cold": {"temperature": 1e-5}}.items():
        got = sample(name, **changes)
        assert [drawn[1] for drawn in got.values()] == [
            (response_text(tokenizer, r).strip(), len(r.ids), not r.finished) for r in expected
        ]


def cut_at(share):
    """A file's first bytes, up to a share of the whole; so a kill leaves it."""
    return lambda content: content[: round(share * len(content))]


@pytest.mark.parametrize(
    "killed",
    [cut_at(0.0), cut_at(0.1), cut_at(0.6), cut_at(1.0), lambda b: b[:-1], lambda b: b.splitlines(True)[0]],
    ids=["at once", "in the first chunk", "later", "at the end", "before the last byte", "after a chunk"],
)
def test_a_killed_run_goes_on_after_its_last_whole_chunk(project, killed):
    expected = sample()
    content = Path("samples.jsonl").read_bytes()
    assert len(content.splitlines()) > 2
    Path("samples.jsonl").write_bytes(killed(content))
    assert sample() == expected and Path("samples.jsonl").read_bytes() == content


def test_what_a_killed_run_saved_is_not_sampled_again(project):
    sample()
    first, *_ = Path("samples.jsonl").read_text().splitlines(keepends=True)
    marked = [[["marked", 1, False]] * 2 for _ in json.loads(first)]
    Path("samples.jsonl").write_text(json.dumps(marked) + "\n")
    got = [drawn[0].text == "marked" for drawn in sample().values()]
    assert got == [True] * len(marked) + [False] * (len(got) - len(marked))


# ---- faults of the model


def fault(**changes):
    with pytest.raises(ParamsError) as error:
        sample(**changes)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("model", ["models/base", f"nobody/none@{COMMIT}"])
def test_a_model_that_cannot_be_had_is_told(project, model):
    assert fault(model_name_or_path=model).startswith(
        f"params.yaml: negatives.model_name_or_path: {model} cannot be loaded: "
    )


def test_a_model_without_a_chat_template_is_told(project):
    Path("models/sft/chat_template.jinja").unlink()
    assert "its tokenizer has no chat template" in fault()


def test_a_template_that_refuses_a_prompt_is_told(project):
    Path("models/sft/chat_template.jinja").write_text("{{ raise_exception('No system\nmessages') }}")
    told = fault()
    assert "messages of the roles user: the chat template of models/sft refuses them: No system messages;" in told


def test_too_many_new_tokens_are_told(project):
    assert fault(max_new_tokens=60).startswith("params.yaml: negatives.max_new_tokens: 60 new tokens leave no room")


def test_a_tokenizer_without_a_pad_token_will_do(project):
    expected = sample("with")
    file = Path("models/sft/tokenizer_config.json")
    config = json.loads(file.read_text())
    del config["pad_token"]
    file.write_text(json.dumps(config))
    assert negatives.load_model(params())[1].pad_token == config["eos_token"]
    assert sample("without") == expected


def test_a_models_answers_end_where_its_template_ends_them(project, tmp_path):
    """Its generation config names the tokenizer's EOS alone, as those of base models do."""
    from rlhf_lib.models import loading as models

    policy, tokenizer = models.load_policy(leaning(tmp_path)), models.load_tokenizer(tmp_path)
    policy.generation_config.eos_token_id = tokenizer.eos_token_id
    models.save(policy, tokenizer, "models/sft")
    end = tokenizer.convert_tokens_to_ids(OVER)
    assert set(negatives.load_model(params())[0].generation_config.eos_token_id) == {tokenizer.eos_token_id, end}
    drawn = [one for of_prompt in sample(max_new_tokens=12).values() for one in of_prompt]
    assert {one.cut for one in drawn} == {True, False} and not any(OVER in one.text for one in drawn)


def test_a_template_that_never_ends_an_answer_is_told(project):
    Path("models/sft/chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    told = fault()
    assert told.startswith("params.yaml: negatives.model_name_or_path: models/sft: the chat template of models/sft")
    assert "never ends an answer: behind it stands" in told


def test_the_model_is_held_as_the_params_say(project, compute):
    compute(precision="bf16", frozen_dtype="bf16")
    model, _ = negatives.load_model(params())
    assert frozen.is_held(model) and model.get_input_embeddings().weight.dtype == torch.bfloat16
    said = sample()
    assert len(said) == len(prompts()) and all(answer.tokens >= 1 for answers in said.values() for answer in answers)
