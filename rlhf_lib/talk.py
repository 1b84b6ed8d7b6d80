"""Talk to the models that the pipeline trained.

    python -m rlhf_lib.talk chat models/dpo
    python -m rlhf_lib.talk compare models/ppo models/dpo "Name a colour."

`transformers chat` would need a server (`transformers serve`) beside it; this loads the directory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlhf_lib import typed
from rlhf_lib.common import environment, left_out, paths
from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.common.schema import read
from rlhf_lib.common.terminal import visible
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.evaluation.params import EvaluateParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlhf_lib.common.rows import Message
    from rlhf_lib.scoring.reward_model import RewardModel

NARROW = 80  # columns of a terminal below which answers are shown one after another
SCORERS = ("reward", "judge")


class Policy(NamedTuple):
    """A model that answers, by the name of its directory."""

    path: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def room(self, max_new_tokens: int) -> int | None:
        """Tokens that a prompt may have, where the model's context is known; a `SystemExit` where that is none."""
        from rlhf_lib.models.loading import context_length

        context = context_length(self.model)
        if context is not None and max_new_tokens >= context:
            raise SystemExit(
                f"{self.path}: {max_new_tokens} new tokens leave no room for a prompt in the model's context of "
                f"{context} tokens; lower max_new_tokens"
            )
        return None if context is None else context - max_new_tokens


class Answer(NamedTuple):
    """What a policy said, and what there is to say of it."""

    text: str
    remark: str


def check(path: str) -> None:
    """A `SystemExit` of one line where the files of a directory are not those of a model that answers."""
    if not os.path.isdir(path):
        raise SystemExit(f"{path}: no such directory; dvc repro makes models/sft, models/ppo and models/dpo")
    if why := left_out.reason(path):
        raise SystemExit(f"{path}: no model in it: {why}")
    from rlhf_lib.models import directory

    if told := directory.fault(path):
        raise SystemExit(f"{path}: cannot be loaded as a language model: {told}")
    architectures = json.loads(Path(path, "config.json").read_text("utf-8")).get("architectures") or []
    if any("Classification" in architecture for architecture in architectures):
        raise SystemExit(f"{path}: a reward model, which gives no answers; name a policy such as models/ppo")


def load(path: str) -> Policy:
    """The policy in a directory; a `SystemExit` of one line where there is none."""
    check(path)
    from rlhf_lib.common.hub import one_line
    from rlhf_lib.models import hardware, loading
    from rlhf_lib.models.stops import set_ends

    hardware.attend_without_cudnn()
    try:
        policy = Policy(path, loading.load_policy(path), loading.load_tokenizer(path))
        loading.check_tokenizer(policy.tokenizer, policy.model)
    except Exception as error:  # whatever a broken file makes the libraries raise
        raise SystemExit(f"{path}: cannot be loaded as a language model: {one_line(error)}") from None
    if policy.tokenizer.chat_template is None:
        raise SystemExit(f"{path}: its tokenizer has no chat template; name a model that base, sft, ppo or dpo wrote")
    try:
        set_ends(policy.model, policy.tokenizer)
    except ParamsError as fault:
        raise SystemExit(f"{path}: {fault}") from None
    return policy


# ---- chat


def fit(policy: Policy, messages: list[Message], room: int | None) -> list[Message]:
    """The messages without the oldest turns that do not fit; empty where the last message alone does not."""
    from rlhf_lib.models.chat import prompt_ids

    while messages and room is not None and len(prompt_ids(policy.tokenizer, messages)) > room:
        messages = messages[2:]
    return messages


def say(policy: Policy, messages: list[Message], temperature: float, max_new_tokens: int) -> str:
    """The next answer, which is printed while it is made."""
    from rlhf_lib.generation.streaming import stream
    from rlhf_lib.models.chat import prompt_ids

    def show(text: str, is_last: bool) -> None:
        print(visible(text), flush=True, end="\n" if is_last else "")

    prompt = prompt_ids(policy.tokenizer, messages)
    return stream(policy.model, policy.tokenizer, prompt, temperature, max_new_tokens, show)


def chat(path: str, temperature: float, max_new_tokens: int, seed: int) -> None:
    """A conversation in the terminal."""
    import torch

    policy = load(path)
    room = policy.room(max_new_tokens)
    torch.manual_seed(seed)
    print(f"{path}: /reset starts a new conversation, /exit or Ctrl-D ends; //x sends /x")
    if example := test_prompt():
        print(f"For example, from the test split: {example}")
    history: list[Message] = []

    def reset() -> None:
        history.clear()
        print("(a new conversation)")

    for line in typed.lines("> ", {"/reset": typed.Command("starts a new conversation", reset)}):
        messages: list[Message] = [*history, {"role": "user", "content": line}]
        kept = fit(policy, messages, room)
        if not kept:
            print(f"(too long: message and answer have {room} + {max_new_tokens} tokens of room; it was not sent)")
            continue
        if len(kept) < len(messages):
            print(
                f"(the conversation is longer than the model's context: its oldest {(len(messages) - len(kept)) // 2} "
                "turns were dropped)"
            )
        history[:] = [*kept, {"role": "assistant", "content": say(policy, kept, temperature, max_new_tokens)}]


def test_prompt() -> str | None:
    """The first prompt of one turn in the test split, on one line; None where there is no such file or prompt."""
    file = Path(paths.split("test"))
    rows = read_jsonl(file) if file.is_file() else []
    found = next((row["prompt"][0]["content"] for row in rows if len(row["prompt"]) == 1), None)
    return found and " ".join(found.split())[:200]


# ---- compare


def load_scorers(batch_size: int) -> dict[str, RewardModel]:
    """The pipeline's reward models that exist."""
    from rlhf_lib.scoring.reward_model import RewardModel

    there = {name: p for name in SCORERS if Path(p := paths.model(name), "config.json").is_file()}
    return {name: RewardModel.load(path, batch_size=batch_size) for name, path in there.items()}


def answers(
    policy: Policy, prompt: str, arguments: argparse.Namespace, scorers: dict[str, RewardModel]
) -> list[Answer]:
    """Samples of a policy, each with its rewards and length; all policies draw with the same random numbers."""
    from rlhf_lib.generation.decoding import generate
    from rlhf_lib.generation.sampling import Sampling, random_numbers, response_text
    from rlhf_lib.models.chat import prompt_ids

    messages: list[Message] = [{"role": "user", "content": prompt}]
    ids, room = prompt_ids(policy.tokenizer, messages), policy.room(arguments.max_new_tokens)
    if room is not None and len(ids) > room:
        raise SystemExit(f"{policy.path}: the prompt has {len(ids)} tokens, and {room} fit beside the answer")
    sampling = Sampling(arguments.max_new_tokens, arguments.temperature)
    noise = random_numbers(arguments.n, sampling, arguments.seed)
    responses = generate(policy.model, policy.tokenizer, [ids] * arguments.n, sampling, noise, arguments.batch_size)
    texts = [response_text(policy.tokenizer, response) for response in responses]
    rewards = {name: scorer([messages] * len(texts), texts) for name, scorer in scorers.items()}
    remarks = []
    for i, response in enumerate(responses):
        parts = [f"{name} {values[i]:.2f}" for name, values in rewards.items()]
        parts.append(f"{len(response.ids)} tokens" + ("" if response.finished else ", cut"))
        remarks.append(", ".join(parts))
    return [Answer(visible(text), remark) for text, remark in zip(texts, remarks, strict=True)]


def wrapped(answer: Answer, width: int) -> list[str]:
    """An answer as lines of at most `width` characters, its remark last."""
    paragraphs = (answer.text or "(empty)").splitlines()
    return [line for text in [*paragraphs, f"({answer.remark})"] for line in textwrap.wrap(text, width) or [""]]


def beside(first: Sequence[str], second: Sequence[str], width: int) -> list[str]:
    """Two lists of lines as two columns of `width` characters."""
    height = max(len(first), len(second))
    left, right = ([*column, *[""] * (height - len(column))] for column in (first, second))
    return [f"{a:{width}} | {b}".rstrip() for a, b in zip(left, right, strict=True)]


def side_by_side(titles: tuple[str, str], pairs: Sequence[tuple[Answer, Answer]], columns: int) -> str:
    """Both policies' answers in a terminal of so many columns: beside each other, or, where narrow, in turn."""
    if columns < NARROW:
        blocks = [[f"{title}:", *wrapped(a, columns)] for pair in pairs for title, a in zip(titles, pair, strict=True)]
        return "\n\n".join("\n".join(block) for block in blocks)
    width = (columns - 3) // 2
    found = beside(titles[:1], titles[1:], width) + ["-" * width + "-+-" + "-" * width]
    for first, second in pairs:
        found += [*beside(wrapped(first, width), wrapped(second, width), width), ""]
    return "\n".join(found).rstrip()


def compare(arguments: argparse.Namespace) -> None:
    """The answers of two policies to the same prompt: the given one, or those that are typed."""
    first, second, scorers = load(arguments.first), load(arguments.second), load_scorers(arguments.batch_size)
    prompts = typed.lines("prompt> ") if arguments.prompt is None else [arguments.prompt]
    for prompt in prompts:
        said = [answers(policy, prompt, arguments, scorers) for policy in (first, second)]
        columns = shutil.get_terminal_size().columns
        print(side_by_side((first.path, second.path), list(zip(*said, strict=True)), columns))


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.talk", description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("chat", help="a conversation with one model")
    one.add_argument("model", help="a directory, such as models/dpo")
    two = commands.add_parser("compare", help="two models' answers to the same prompt")
    two.add_argument("first")
    two.add_argument("second")
    two.add_argument("prompt", nargs="?", help="none: it is asked for")
    two.add_argument("-n", "--n", type=int, default=1, help="answers of each model")
    two.add_argument("--per-device-eval-batch-size", type=int, default=16, dest="batch_size", help="at once; 16")
    for command, temperature in ((one, 0.7), (two, 0.0)):
        command.add_argument("--temperature", type=float, default=temperature, help=f"0: greedy; {temperature}")
        command.add_argument("--max-new-tokens", type=int, help="as evaluate.max_new_tokens in params.yaml")
        command.add_argument("--seed", type=int, default=0, help="of the sampling")
    arguments = parser.parse_args(given)
    if arguments.max_new_tokens is None:
        arguments.max_new_tokens = read("evaluate", EvaluateParams).max_new_tokens
    if arguments.max_new_tokens < 1 or arguments.temperature < 0:
        parser.error("--max-new-tokens must be at least 1, and --temperature at least 0")
    if arguments.command == "compare" and arguments.batch_size < 1:
        parser.error("--per-device-eval-batch-size must be at least 1")
    if arguments.command == "compare" and (arguments.n < 1 or (arguments.n > 1 and not arguments.temperature)):
        parser.error(
            "--n must be at least 1; above 1 it needs a --temperature above 0: greedy answers are all the same"
        )
    return arguments


def main(given: Sequence[str] | None = None) -> None:
    """The command line, or the arguments that are given."""
    arguments = parse(given)
    environment.prepare()
    try:
        if arguments.command == "chat":
            chat(arguments.model, arguments.temperature, arguments.max_new_tokens, arguments.seed)
        else:
            compare(arguments)
    except KeyboardInterrupt:
        print()


def chat_main() -> None:
    """The command `rlhf-chat`, whose arguments are those of `chat`."""
    main(["chat", *sys.argv[1:]])


if __name__ == "__main__":
    main()
