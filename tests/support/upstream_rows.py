"""Many records of each hub dataset, with the columns that upstream has: of each prompt's answers, the good one is about
what was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import upstream

Record = dict[str, Any]

THINGS = ["bread", "rivers", "clocks", "owls", "chess", "salt", "maps", "tides", "bees", "glass", "wool", "comets"]
PLACES = ["Oslo", "Lima", "Cairo", "Quito", "Perth", "Turin", "Osaka", "Dakar", "Minsk", "Tunis"]
SOURCES = ["evol_instruct", "false_qa", "flan", "sharegpt", "truthful_qa", "ultrachat"]


def question(i: int) -> str:
    return f"What do people in {PLACES[i % 10]} say about {THINGS[i % 12]} in year {1900 + i}?"


def good(i: int) -> str:
    return f"They say that {THINGS[i % 12]} are well known in {PLACES[i % 10]}, more so in {1900 + i}."


def bad(i: int) -> str:
    return f"I do not know what you mean by number {i}."


def opening(i: int) -> str:
    return f"\n\nHuman: Hello from {PLACES[i % 7]}\n\nAssistant: Hello\n\nHuman: {question(i)}\n\nAssistant:"


def ultrafeedback(i: int) -> Record:
    answers = [(good(i), 9.0), (f"{THINGS[i % 12]} are known.", 6.5), ("Ask someone else there.", 4.0), (bad(i), 1.5)]
    made = [upstream.completion(text, score) for text, score in answers]
    return {**upstream.ULTRAFEEDBACK, "source": SOURCES[i % 6], "instruction": question(i), "completions": made}


def ultrafeedback_binarized(i: int) -> Record:
    sides = {"chosen": upstream.dialogue(question(i), good(i)), "rejected": upstream.dialogue(question(i), bad(i))}
    return {**upstream.H4, "prompt": question(i), **sides, "messages": sides["chosen"], "prompt_id": f"{i:04x}"}


def ultrachat(i: int) -> Record:
    messages = upstream.dialogue(question(i), good(i), f"And about {THINGS[(i + 1) % 12]}?", good(i + 1))
    return {"prompt": question(i), "prompt_id": f"{i:04x}", "messages": messages}


def hh(i: int) -> Record:
    return {"chosen": f"{opening(i)} {good(i)}", "rejected": f"{opening(i)} {bad(i)}"}


def shp(i: int) -> Record:
    sides = {"human_ref_A": good(i), "human_ref_B": bad(i), "score_A": 40 + i, "score_B": 3, "labels": 1}
    return {**upstream.SHP, "post_id": f"post{i}", "history": question(i), **sides, "score_ratio": (40 + i) / 3}


def stack_exchange(i: int) -> Record:
    answers = [upstream.answer(f"<p>{good(i)}</p>\n", 3), upstream.answer(f"<p>{bad(i)}</p>\n", -1, selected=False)]
    return {**upstream.STACK_EXCHANGE, "qid": i, "question": f"<p>{question(i)}</p>\n", "answers": answers}


def rm_static(i: int) -> Record:
    return {"prompt": opening(i), "response": f" {good(i)}", "chosen": f" {good(i)}", "rejected": f" {bad(i)}"}


def pun(i: int) -> Record:
    """A row of a pun list; a third have no dialogue before them."""
    before = f"i heard of the {THINGS[i % 12]} of {PLACES[i % 10]}" if i % 3 else None
    return {
        "Direct Prompt": f"make a pun about {THINGS[i % 12]} and {PLACES[i % 10]} number {i}",
        "Conversation Prompt": before,
        "Example Response": f"i {THINGS[i % 12]} you so, said the one from {PLACES[i % 10]}",
        "Original": "No",
    }


def scored_answer(i: int) -> Record:
    """A row of a file of questions, answers and scores: each question comes twice."""
    well = i % 2 == 0
    return {"Question": question(i // 2), "Answer": (good if well else bad)(i // 2), "Score": 1.5 if well else -1.0}


def contrast(i: int) -> Record:
    """A row of a file of questions with an accepted answer and another one."""
    return {"Question": question(i), "Accepted_Answer": good(i), "Answer": bad(i)}


MAKERS: dict[str, Callable[[int], Record]] = {
    maker.__name__: maker
    for maker in (ultrafeedback, ultrafeedback_binarized, ultrachat, hh, shp, stack_exchange, rm_static)
}


def texts(count: int = 200) -> list[str]:
    """What tokenizers learn from."""
    return [text for i in range(count) for text in (question(i), good(i), bad(i), pun(i)["Direct Prompt"])]
