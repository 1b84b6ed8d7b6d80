"""Chat templates that refuse, fail, or lose text, told in one line; and the answer's place in odd ones."""

import pytest
from one_line import told
from tiny_models import TEXTS
from tokenizers import Regex, pre_tokenizers
from trl_trainers import CHOSEN, REJECTED, TRAINER, assistant, dataset, dpo_params, pair, reward_trainer, sft_rows, user

from rlhf_lib.base import model as base
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.dpo.reference import COLUMNS, reference_logprobs
from rlhf_lib.evaluation.draws import dataset as own_responses
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_and_start, dialogue_ids, pair_and_start, prompt_and_answer, prompt_ids
from rlhf_lib.models.logprobs import Response, sequence_logprobs
from rlhf_lib.models.templates import check_file, check_rows
from rlhf_lib.ppo.data import Completions, Prompts
from rlhf_lib.sft import data as sft_data
from rlhf_lib.sft import trainer as sft
from rlhf_lib.sft.params import SFTParams

SYSTEM = {"role": "system", "content": "Be brief."}
# The prompt ends with an empty block of thoughts that a dialogue does not have.
THINKING = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>(think)(/think){% endif %}"
)
# Thoughts are cut out of all turns but the last.
STRIPPING = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and not loop.last %}"
    "{{ m.content.split('(/think)')[-1] }}<|end|>{% elif m.role == 'assistant' %}{{ m.content }}<|end|>{% else %}"
    "{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# The first question is marked as the last one while nothing follows it.
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if loop.last and m.role == 'user' %}now: {% endif %}{{ m.content }}"
    "{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ODD = {"thinking": THINKING, "stripping": STRIPPING, "marked": MARKED}


@pytest.fixture
def tokenizer(tiny):
    return models.load_tokenizer(tiny.policy)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# ---- where the answer begins


@pytest.mark.parametrize("template", ODD)
@pytest.mark.parametrize("answer", ["Cat.", "xylophone", "yes", "(think)hm(/think)Cat.", "now: a cat"])
def test_the_answer_begins_after_its_turns_opening(tokenizer, template, answer):
    tokenizer.chat_template = ODD[template]
    prompt = [*user("Name a cat."), *assistant("(think)hm(/think)A cat."), *user("Name the dog.")]
    dialogue, start = dialogue_and_start(tokenizer, prompt, answer)
    if (template, answer) == ("thinking", "(think)hm(/think)Cat."):  # which begins as the prompt ends
        assert dialogue == dialogue_ids(tokenizer, prompt, answer)
        return
    assert dialogue[start:] == [*ids(tokenizer, answer), tokenizer.eos_token_id]
    assert dialogue[:start] == prompt_ids(tokenizer, prompt)  # from which a policy samples


# Thoughts stand before each answer, and the prompt opens them, as those of Qwen3's thinking models.
OPENED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{{ '(think)\n\n(/think)\n\n' + m.content }}"
    "<|end|>{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>(think)\n' }}{% endif %}"
)
# The prompt ends with a line's end, which blank lines of an answer are read together with.
LINE = (
    "{% for m in messages %}{{ m.role + '\n' + m.content }}{% if m.role == 'assistant' %}<|end|>{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def of_lines():
    """A tokenizer that reads line ends behind each other as one token."""
    made = base.fresh_tokenizer([f"{text}:\n\n{text}\n\n\n" for text in TEXTS], 400)
    lines = pre_tokenizers.Split(Regex(r"\n+|[^\n]+"), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, letters])
    assert len(ids(made, "a\n\nb")) == len(ids(made, "a\n\n\nb")) == 3
    return made


@pytest.mark.parametrize(
    ("template", "answer", "learnt"),
    [
        (OPENED, "Cat.", "\n(/think)\n\nCat.<|end|>"),
        (OPENED, "\nCat.", "\n(/think)\n\n\nCat.<|end|>"),
        (LINE, "Cat.", "Cat.<|end|>\n"),
        (LINE, "\nCat.", "\nCat.<|end|>\n"),
        (LINE, "\n\n", "\n\n<|end|>\n"),
    ],
)
def test_an_answer_is_learnt_behind_the_tokens_that_are_sampled_from(of_lines, template, answer, learnt):
    """Where what the template writes before it, or it begins with, would be one token with the prompt's end."""
    of_lines.chat_template = template
    dialogue, start = dialogue_and_start(of_lines, user("Name a cat."), answer)
    assert dialogue[:start] == prompt_ids(of_lines, user("Name a cat."))
    assert dialogue[start:] == ids(of_lines, learnt)
    assert of_lines.decode(dialogue) == of_lines.decode(dialogue_ids(of_lines, user("Name a cat."), answer))


def marked_context(tokenizer, question, answer):
    """Of the template MARKED, by hand: what stands before an answer, and the answer."""
    before = ids(tokenizer, f"<|user|>now: {question}<|assistant|>")
    return before, [*ids(tokenizer, answer), tokenizer.eos_token_id]


def test_a_pair_shares_what_stands_before_its_answers(tokenizer):
    tokenizer.chat_template = MARKED
    dialogues, start = pair_and_start(tokenizer, user("Name the dog."), ("dog", "dog cat"))
    before, _ = marked_context(tokenizer, "Name the dog.", "")
    assert [dialogue[:start] for dialogue in dialogues] == [before, before]
    assert [d[start:] for d in dialogues] == [marked_context(tokenizer, "", a)[1] for a in ("dog", "dog cat")]


def save_marked(tiny, tokenizer, folder):
    tokenizer.chat_template = MARKED
    models.save(models.load_policy(tiny.policy), tokenizer, folder)
    return str(folder)


def test_sft_learns_the_answers_tokens_alone(tiny, tokenizer, checkpoints, tmp_path):
    model = save_marked(tiny, tokenizer, tmp_path / "model")
    rows = dataset(sft_rows(), sft.COLUMNS)
    encoded, _ = sft_data.encode(rows, tokenizer, 64, "rows.jsonl")
    for row, text, answer in zip(encoded, TEXTS, CHOSEN, strict=True):
        before, after = marked_context(tokenizer, text, answer)
        assert row["input_ids"] == before + after
        assert row["labels"] == [sft_data.IGNORED] * len(before) + after
    loss = sft.token_loss(models.load_policy(model), tokenizer, sft_rows(), 64, 4)
    parts = [marked_context(tokenizer, *both) for both in zip(TEXTS, CHOSEN, strict=True)]
    total = sum(logprobs_of(model, tokenizer, parts))
    assert loss == pytest.approx(-total / sum(len(after) for _, after in parts), abs=1e-5)


def logprobs_of(model, tokenizer, parts):
    prompts, responses = [before for before, _ in parts], [Response(after, True) for _, after in parts]
    return sequence_logprobs(models.load_policy(model), prompts, responses, tokenizer.pad_token_id, batch_size=4)


def test_dpo_and_its_reference_see_the_answers_tokens_alone(tiny, tokenizer, checkpoints, tmp_path):
    model = save_marked(tiny, tokenizer, tmp_path / "model")
    rows = [pair(i) for i in range(4)]
    found = reference_logprobs(models.load_policy(model), tokenizer, rows, 64, 4)
    for key, answers in (("ref_chosen_logps", CHOSEN), ("ref_rejected_logps", REJECTED)):
        parts = [marked_context(tokenizer, TEXTS[i], answers[i]) for i in range(4)]
        assert [row[key] for row in found] == pytest.approx(logprobs_of(model, tokenizer, parts), abs=1e-4)
    write_jsonl("reference.jsonl", found)
    pairs = dpo.with_reference(dataset(rows, COLUMNS), "reference.jsonl")
    trainer = dpo.build(dpo_params(), 64, model, pairs, pairs, checkpoints)
    for i, row in enumerate(trainer.train_dataset):
        before, chosen = marked_context(tokenizer, TEXTS[i], CHOSEN[i])
        assert (row["prompt_ids"], row["chosen_ids"]) == (before, chosen)
        assert row["rejected_ids"] == marked_context(tokenizer, "", REJECTED[i])[1]


def test_ptx_and_the_evaluation_of_given_answers_see_the_answers_tokens_alone(policy, tokenizer):
    tokenizer.chat_template = MARKED
    expected = [marked_context(tokenizer, *both) for both in zip(TEXTS, CHOSEN, strict=True)]
    completions = Completions(tokenizer, sft_rows(), 64)
    assert [(prompt, response.ids) for prompt, response in completions.rows] == expected
    row = {"id": "a", "source": "s", "prompt": user(TEXTS[0]), "responses": [{"content": CHOSEN[0], "score": 1.0}]}
    said = own_responses(policy, tokenizer, [row])
    assert [(one.prompt, one.response.ids) for one in said] == expected[:1]
    assert prompt_and_answer(tokenizer, user(TEXTS[0]), CHOSEN[0], None) == (*expected[0], True)


# ---- what a template refuses


def raising(condition, text):
    return f"{{% if {condition} %}}{{{{ raise_exception('{text}') }}}}{{% endif %}}{THINKING}"


NO_SYSTEM = raising("messages[0].role == 'system'", "System role not supported")
ALTERNATE = raising("messages | length > 1 and messages[0].role == messages[1].role", "roles must alternate")
REFUSALS = {
    "system": (NO_SYSTEM, [SYSTEM, *user("Hi?")], "system, user: .* refuses them: System role not supported"),
    "alternation": (ALTERNATE, user("A?") + user("B?"), "user, user: .* refuses them: roles must alternate"),
    "fixed text": ("hello", user("Hi?"), r"user: .* leaves out the text of message 1 \(user\)"),
    "no system": (
        "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}{% endfor %}",
        [SYSTEM, *user("Hi?")],
        r"leaves out the text of message 1 \(system\)",
    ),
    "a broken one": ("{% for m in %}", user("Hi?"), "refuses them: "),
    "an error of its own": ("{{ messages[7].content.x }}", user("Hi?"), "refuses them: "),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_a_template_refuses_names_file_row_and_model(tokenizer, tiny, case):
    tokenizer.chat_template, prompt, text = REFUSALS[case]
    said = told(check_rows, tokenizer, [prompt], "rows.jsonl")
    assert said.startswith("rows.jsonl: row 1: messages of the roles ") and str(tiny.policy) in said
    with pytest.raises(SystemExit, match=text):
        check_rows(tokenizer, [prompt], "rows.jsonl")
    for render in (prompt_ids, lambda t, p: dialogue_ids(t, p, "Yes.")):
        assert str(tiny.policy) in told(render, tokenizer, prompt)


def test_the_first_row_that_is_refused_is_named(tokenizer):
    tokenizer.chat_template = NO_SYSTEM
    good, bad = user("Hi?"), [SYSTEM, *user("Hi?")]
    check_rows(tokenizer, [good] * 3, "rows.jsonl")
    assert told(check_rows, tokenizer, [good, good, bad, bad], "rows.jsonl").startswith("rows.jsonl: row 3: ")


def refusing(tiny, tokenizer, folder):
    """A model whose template refuses a message that says sky, which rows 3, 6 and 9 do."""
    words = raising("'sky' in messages[0].content", "no sky")
    tokenizer.chat_template = words
    models.save(models.load_policy(tiny.policy), tokenizer, folder)
    return str(folder)


def test_each_trainer_names_the_row_whose_words_are_refused(tiny, tokenizer, checkpoints, tmp_path):
    model = refusing(tiny, tokenizer, tmp_path / "model")
    tokenizer = models.load_tokenizer(model)
    rows = dataset(sft_rows(), sft.COLUMNS)
    params = SFTParams(**{**TRAINER, "max_length": 64})
    assert told(sft.build, params, model, rows, rows, checkpoints).startswith("data/splits/sft_train.jsonl: row 3: ")
    pairs = [pair(i) for i in range(9)]
    said = told(reference_logprobs, models.load_policy(model), tokenizer, pairs, 64, 4, split="validation")
    assert said.startswith("data/splits/preference_validation.jsonl: row 3: ") and "fails: no sky" in said
    said = told(reward_trainer, tiny, checkpoints, model_name_or_path=model)
    assert said.startswith("pairs.jsonl: row 3: ")
    said = told(Prompts.encode, tokenizer, [{"prompt": user(text)} for text in TEXTS], 8, 64, "prompts.jsonl")
    assert said.startswith("prompts.jsonl: row 3: ")


def test_a_file_is_tried_on_every_template(tokenizer, tiny, tmp_path):
    rows = [{"prompt": user("Hi?")}, {"prompt": [SYSTEM, *user("Hi?")]}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    picky = models.load_tokenizer(tiny.policy)
    picky.chat_template = NO_SYSTEM
    check_file(tmp_path / "rows.jsonl", tokenizer)
    said = told(check_file, tmp_path / "rows.jsonl", tokenizer, picky)
    assert said.startswith(f"{tmp_path / 'rows.jsonl'}: row 2: messages of the roles system, user: ")
