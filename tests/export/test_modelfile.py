"""Ollama's Modelfile: the prompt that its template writes is the one that the chat template writes."""

from copy import deepcopy

import go_templates
import pytest
from chat_standins import FAMILIES, tokenizer_of

from rlhf_lib.export import ollama
from rlhf_lib.models.chat import chat_template
from rlhf_lib.models.settled import adds_bos, settle
from rlhf_lib.models.templates import TemplateFault, render

SAMPLING = {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 0.9, "max_new_tokens": 48}
DIALOGUES = ["user", "system user", "user assistant user", "system user assistant user assistant user"]


def tokenizer_with(template, name="gpt2"):
    tokenizer = deepcopy(tokenizer_of(name))
    tokenizer.chat_template = template
    settle(tokenizer)
    return tokenizer


def messages(roles):
    return [
        {"role": role, "content": f'{number} "é" {{{{ .Role }}}} <b>\n\n- x'}
        for number, role in enumerate(roles.split())
    ]


@pytest.mark.parametrize("roles", DIALOGUES)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_prompt_is_that_of_the_chat_template(name, roles):
    tokenizer = tokenizer_with(FAMILIES[name].template or chat_template(), name)
    text = ollama.go_template(ollama.pieces(tokenizer), tokenizer.bos_token if adds_bos(tokenizer) else "")
    try:
        expected = render(tokenizer, messages(roles), add_generation_prompt=True)
    except TemplateFault:
        assert name == "gemma" and roles.startswith("system")
        return
    if adds_bos(tokenizer):  # the server puts it there itself
        expected = expected.removeprefix(tokenizer.bos_token)
    assert go_templates.render(text, messages(roles)) == expected


def test_a_template_without_a_system_message_leaves_it_out():
    text = ollama.go_template(ollama.pieces(tokenizer_with(FAMILIES["gemma"].template, "gemma")), "<bos>")
    assert go_templates.render(text, messages("system user")) == go_templates.render(text, messages("system user")[1:])


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for m in messages %}{{ loop.length }}{{ m.role }}: {{ m.content }}\n{% endfor %}", "more than its role"),
        (
            "{% for m in messages %}{{ m.role }}{{ m.content | length }}: {{ m.content }}\n{% endfor %}",
            "more than its role",
        ),
        ("{{ raise_exception('no') }}", "refuses them: no"),
    ],
)
def test_a_template_that_is_more_than_text_around_messages_is_not_guessed(template, told):
    with pytest.raises(ollama.Unturnable, match=told):
        ollama.pieces(tokenizer_with(template))


def test_parameters_and_stops():
    stops = ["<|endoftext|>", "\nUser:", 'say "no"']
    lines = ollama.modelfile(tokenizer_with(chat_template()), "dpo-f16.gguf", SAMPLING, stops, 160).split("PARAMETER ")
    assert lines[0].splitlines()[1] == "FROM ./dpo-f16.gguf" and '"""' in lines[0]
    given = dict(line.strip().split(" ", 1) for line in lines[1:-3])
    numbers = {"temperature": "0.7", "top_k": "0", "top_p": "0.9", "num_predict": "48", "num_ctx": "160"}
    assert given == numbers | {"min_p": "0", "repeat_penalty": "1"}
    assert lines[-3:] == ['stop "<|endoftext|>"\n', 'stop """\nUser:"""\n', 'stop """say "no""""\n']


def test_greedy_is_a_temperature_of_0():
    text = ollama.modelfile(tokenizer_with(chat_template()), "x.gguf", {"do_sample": False}, [], None)
    assert "PARAMETER temperature 0\n" in text and "num_ctx" not in text and "stop" not in text


def test_no_piece_ends_the_template_before_its_end():
    template = "{% for m in messages %}" + '{{ \'"""\' + m.role + m.content + "\\n" }}' + "{% endfor %}"
    text = ollama.go_template(ollama.pieces(tokenizer_with(template)))
    assert '"""' not in text
    assert go_templates.render(text, messages("user")) == f'"""user{messages("user")[0]["content"]}\n'
