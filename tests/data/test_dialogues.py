import pytest
from upstream import HH_PROMPTS, RM_STATIC, SFT_STATIC, ULTRACHAT, dialogue, parse, row_of

REPLY = {"rejected": "\n\nHuman: Q?\n\nAssistant: B"}


def test_ultrachat_ends_on_its_last_answer():
    cut = {**ULTRACHAT, "messages": dialogue("Hi", "Hello", "Bye")}
    assert row_of("ultrachat", cut)[1:] == (dialogue("Hi"), [("Hello", None)])
    system = {"role": "system", "content": "Be kind."}
    with_system = {**ULTRACHAT, "messages": [system, *dialogue("Hi", "Hello")]}
    assert row_of("ultrachat", with_system)[1] == [system, *dialogue("Hi")]


@pytest.mark.parametrize(
    ("messages", "reasons"),
    [
        (dialogue("Hi"), ["malformed"]),
        (dialogue("Hi", "Hello")[1:], ["malformed"]),
        ([*dialogue("Hi", "Hello"), *dialogue("Hi", "Again")[1:]], ["malformed"]),
        ([], ["malformed"]),
        ("Hi", ["malformed"]),
        (dialogue(" ", "Hello"), ["empty_prompt"]),
        (dialogue("Hi", "\n"), ["response_empty", "no_usable_response"]),
    ],
)
def test_faulty_ultrachat_records(messages, reasons):
    assert parse("ultrachat", {**ULTRACHAT, "messages": messages}) == (reasons, [])


@pytest.mark.parametrize(
    ("text", "prompt", "response"),
    [
        ("\n\nHuman: Q?\n\nAssistant: A", ["Q?"], "A"),
        ("\n\nHuman:Q? \n\nAssistant:  A\n", ["Q?"], "A"),
        ("\r\n\r\nHuman: Q?\r\n\r\nAssistant: A\r\n", ["Q?"], "A"),
        ("Human: Q?\n\nAssistant: A", ["Q?"], "A"),
        ("\n\nHuman: Say\nAssistant: no\n\nAssistant: A\n\nHumanly:", ["Say\nAssistant: no"], "A\n\nHumanly:"),
        ("\n\nHuman: I said \n\nHuman: Q?\n\nAssistant: A", ["I said\nQ?"], "A"),
        ("\n\nHuman: Q?\n\nAssistant: A\n\nAssistant: and B", ["Q?"], "A\nand B"),
        ("\n\nHuman: Hi\n\nAssistant:\n\nHuman: Q?\n\nAssistant: A", ["Hi\nQ?"], "A"),
        (
            "\n\nHuman: Hi\n\nAssistant: Yo\n\nHuman: \n\nAssistant: Hey\n\nHuman: Q?\n\nAssistant: A",
            ["Hi", "Yo\nHey", "Q?"],
            "A",
        ),
    ],
)
def test_hh_turns(text, prompt, response):
    assert row_of("hh", {"chosen": text, "rejected": text})[1:] == (
        dialogue(*prompt),
        [(response, 1.0), (response, 0.0)],
    )


@pytest.mark.parametrize(
    ("chosen", "reasons"),
    [
        ("\n\nHuman: Other?\n\nAssistant: A", ["prompts_differ"]),
        ("\n\nHuman: Q?\n\nAssistant: A\n\nHuman: More?\n\nAssistant: C", ["prompts_differ"]),
        ("\n\nHuman: Q?", ["malformed"]),
        ("\n\nHuman: Q?\n\nAssistant: A\n\nHuman: Thanks", ["malformed"]),
        ("\n\nAssistant: A", ["malformed"]),
        ("\n\nAssistant: Hi\n\nHuman: Q?\n\nAssistant: A", ["malformed"]),
        ("A chat.\n\nHuman: Q?\n\nAssistant: A", ["malformed"]),
        ("Q? A", ["malformed"]),
        ("", ["malformed"]),
        (None, ["malformed"]),
        ("\n\nHuman: Q?\n\nAssistant: \ud800", ["malformed"]),
    ],
)
def test_faulty_hh_records(chosen, reasons):
    assert parse("hh", {**REPLY, "chosen": chosen}) == (reasons, [])


def test_hh_dialogue_whose_last_question_is_empty():
    text = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: \n\nAssistant: A"
    assert parse("hh", {"chosen": text, "rejected": text}) == (["empty_prompt"], [])


@pytest.mark.parametrize(
    ("reader", "record"),
    [
        ("hh", {**REPLY, "chosen": "\n\nHuman: Q?\n\nAssistant:"}),
        ("hh", {**REPLY, "chosen": "\n\nHuman: Q?\n\nAssistant: \u200b"}),
        ("rm_static", {**RM_STATIC, "chosen": " "}),
    ],
)
def test_a_rejected_answer_is_not_used_without_the_chosen_one(reader, record):
    assert parse(reader, record) == (["response_empty", "no_usable_response"], [])


@pytest.mark.parametrize(
    ("reader", "record"),
    [
        ("hh", {**REPLY, "chosen": "\n\nHuman: Q?\n\nAssistant: A", "rejected": "\n\nHuman: Q?\n\nAssistant: "}),
        ("rm_static", {**RM_STATIC, "rejected": ""}),
    ],
)
def test_a_chosen_answer_is_used_without_the_rejected_one(reader, record):
    reasons, (row,) = parse(reader, record)
    assert reasons == ["response_empty"]
    assert row["responses"] == [{"content": "A", "score": 1.0}]


def test_red_team_records_are_no_pairs():
    red_team = {
        "min_harmlessness_score_transcript": -1.2,
        "num_params": "52B",
        "model_type": "rlhf",
        "rating": 4.0,
        "task_description": "Ask about crime",
        "task_description_harmlessness_score": 0.1,
        "red_team_member_id": 2,
        "is_upworker": False,
        "tags": None,
        "transcript": "\n\nHuman: Q?\n\nAssistant: A",
    }
    assert parse("hh", red_team) == (["malformed"], [])


@pytest.mark.parametrize(
    ("reader", "record", "fields"),
    [
        ("rm_static", RM_STATIC, {"prompt": "Q?"}),
        ("rm_static", RM_STATIC, {"prompt": "\n\nHuman: Q?"}),
        ("rm_static", RM_STATIC, {"rejected": None}),
        ("sft_static", SFT_STATIC, {"prompt": "\n\nHuman: Q?"}),
        ("sft_static", SFT_STATIC, {"prompt": None}),
        ("sft_static", SFT_STATIC, {"response": 3}),
        ("hh_prompts", HH_PROMPTS, {"user": None}),
    ],
)
def test_faulty_prompts(reader, record, fields):
    assert parse(reader, {**record, **fields}) == (["malformed"], [])


def test_empty_prompts():
    assert parse("hh_prompts", {**HH_PROMPTS, "user": "\n"}) == (["empty_prompt"], [])
    assert parse("sft_static", {**SFT_STATIC, "prompt": "\n\nHuman: \n\nAssistant:"}) == (["empty_prompt"], [])
