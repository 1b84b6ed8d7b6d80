"""Records of the upstream datasets, with all the columns that upstream has, and what the readers make of them."""

from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.reader import Rejected
from rlhf_lib.data.load.readers import READERS

HELLO = "\n\nHuman: Hi\n\nAssistant: Hello"


def dialogue(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def aspect(rating="4", **more):
    return {"Rating": rating, "Rationale": "Fine.", **more}


def completion(response="Yes.", overall=7.0, **fields):
    typed = aspect("5", Type=["None"], **{"Rationale For Rating": "Fine."})
    return {
        "model": "gpt-4",
        "principle": "honesty",
        "custom_system_prompt": "Be honest.",
        "response": response,
        "annotations": {
            "helpfulness": typed,
            "honesty": aspect("3"),
            "instruction_following": aspect("N/A"),
            "truthfulness": aspect("2"),
        },
        "critique": "Good.",
        "fine-grained_score": 4.25,
        "overall_score": overall,
        **fields,
    }


ULTRAFEEDBACK = {
    "source": "flan",
    "instruction": "Is it?",
    "models": ["gpt-4", "mpt-30b-chat"],
    "completions": [completion(), completion("No.", 2.5)],
    "correct_answers": ["None"],
    "incorrect_answers": ["None"],
}
H4 = {
    "prompt": "Q?",
    "prompt_id": "8f1e",
    "chosen": dialogue("Q?", "A"),
    "rejected": dialogue("Q?", "B"),
    "messages": dialogue("Q?", "A"),
    "score_chosen": 8.5,
    "score_rejected": 3.5,
}
TRL = {key: value for key, value in H4.items() if key not in ("prompt", "prompt_id", "messages")}
TEXTS = {"prompt": "Q?", "chosen": "A", "rejected": "B", "score_chosen": 8.5, "score_rejected": 3.5}
ULTRACHAT = {"prompt": "Hi", "prompt_id": "f0e3", "messages": dialogue("Hi", "Hello", "Q?", "A")}
HH = {"chosen": f"{HELLO}\n\nHuman: Q?\n\nAssistant: A", "rejected": f"{HELLO}\n\nHuman: Q?\n\nAssistant: B"}
HH_PROMPTS = {"user": "Q?", "system": "A", "source": "anthropic"}
SHP = {
    "post_id": "himc90",
    "domain": "askculinary_train",
    "upvote_ratio": 0.99,
    "history": "Why salt?",
    "c_root_id_A": "fwhnqat",
    "c_root_id_B": "fwhp8d4",
    "created_at_utc_A": 1593535113,
    "created_at_utc_B": 1593535824,
    "score_A": 52,
    "score_B": 54,
    "human_ref_A": "Habit.",
    "human_ref_B": "Taste.",
    "labels": 0,
    "seconds_difference": 711.0,
    "score_ratio": 1.0384615385,
}


def answer(text="<p>Yes.</p>\n", pm_score=2, **fields):
    return {
        "answer_id": 7,
        "author": "Ann",
        "author_id": 11,
        "author_profile": "https://math.stackexchange.com/users/11",
        "pm_score": pm_score,
        "selected": True,
        "text": text,
        **fields,
    }


STACK_EXCHANGE = {
    "qid": 5,
    "question": "<p>Is <code>1 &lt; 2</code>?</p>\n",
    "answers": [answer(), answer("<p>No.</p>", -1, selected=False)],
    "date": "2010/07/20",
    "metadata": ["https://math.stackexchange.com/questions/5", "https://math.stackexchange.com"],
}
RM_STATIC = {"prompt": f"{HELLO}\n\nHuman: Q?\n\nAssistant:", "response": " A", "chosen": " A", "rejected": " B"}
SFT_STATIC = {"prompt": f"{HELLO}\n\nHuman: Q?\n\nAssistant:", "response": " A"}

RECORDS = [
    ("demo", ULTRAFEEDBACK),
    ("ultrafeedback", ULTRAFEEDBACK),
    ("ultrafeedback_binarized", H4),
    ("ultrafeedback_binarized", TRL),
    ("ultrafeedback_binarized", TEXTS),
    ("ultrachat", ULTRACHAT),
    ("hh", HH),
    ("hh_prompts", HH_PROMPTS),
    ("shp", SHP),
    ("stack_exchange", STACK_EXCHANGE),
    ("rm_static", RM_STATIC),
    ("sft_static", SFT_STATIC),
]


def parsed(reader, record, **fields):
    path = "any.jsonl" if reader == "file" else None
    return list(READERS[reader].parse(record, SourceParams(reader=reader, path=path, **fields)))


def parse(reader, record, **fields):
    """Reasons of what was rejected, and the rows."""
    items = parsed(reader, record, **fields)
    return [i.reason for i in items if isinstance(i, Rejected)], [i for i in items if not isinstance(i, Rejected)]


def row_of(reader, record, **fields):
    """Source, prompt and (text, score) of the responses of a record that is one row, with nothing rejected."""
    reasons, (row,) = parse(reader, record, **fields)
    assert reasons == []
    return row["source"], row["prompt"], [(r["content"], r["score"]) for r in row["responses"]]
