"""Sums with their solutions, for a reward that can be verified; and the share of right answers to the held-out ones.

python -m examples.arithmetic             # writes arithmetic.jsonl
python -m rlhf_lib.preset arithmetic
dvc repro
python -m examples.arithmetic --share     # of the answers in data/samples
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Iterator
from itertools import combinations_with_replacement
from typing import Any

from rewards.exact import exact
from rlhf_lib.common import paths
from rlhf_lib.common.rows import read_jsonl, write_jsonl
from rlhf_lib.evaluation.samples import DATASET
from rlhf_lib.measure.estimates import Estimate, mean_and_se

TERMS = 4  # of a sum, each a whole number from -9 to 9

Row = dict[str, Any]


def main() -> None:
    arguments = command_line()
    if not arguments.share:
        print(f"{arguments.output}: {write_jsonl(arguments.output, sums()):,} sums")
        return
    test = read_jsonl(paths.split("test"))
    for policy in ("sft", "ppo"):
        for mode, (value, error) in shares(read_jsonl(paths.samples(policy)), test).items():
            print(f"{policy:4} {mode:8} {value:.3f} ± {error:.3f} right")


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.arithmetic",
        description="Write sums with their solutions; or tell the share of right answers to the held-out ones.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", default="arithmetic.jsonl", help="the file of sums")
    parser.add_argument("--share", action="store_true", help="read data/samples instead, which stage evaluate writes")
    return parser.parse_args()


def sums() -> Iterator[Row]:
    """All sums of four terms that do not come to less than 0, each in one order alone: a held-out one is new."""
    generator = random.Random(0)
    found = [terms for terms in combinations_with_replacement(range(-9, 10), TERMS) if sum(terms) >= 0]
    generator.shuffle(found)
    for terms in found:
        first = generator.choice([term for term in terms if term >= 0])
        rest = list(terms)
        rest.remove(first)
        generator.shuffle(rest)
        text = str(first) + "".join(f" {'-' if term < 0 else '+'} {abs(term)}" for term in rest)
        yield {"prompt": f"What is {text}?", "completion": str(sum(terms)), "solution": sum(terms)}


def shares(samples: Iterable[Row], test: Iterable[Row]) -> dict[str, Estimate]:
    """Of each way to sample, the share of right answers and its standard error over the prompts."""
    solutions = {row["id"]: row["solution"] for row in test}
    right: dict[str, dict[str, list[float]]] = {}
    for sample in (sample for sample in samples if sample["mode"] != DATASET):
        completion = [{"role": "assistant", "content": sample["response"]}]
        (reward,) = exact([completion], [solutions[sample["id"]]])
        right.setdefault(sample["mode"], {}).setdefault(sample["id"], []).append(reward or 0.0)
    return {
        mode: mean_and_se([sum(draws) / len(draws) for draws in by_prompt.values()])
        for mode, by_prompt in right.items()
    }


if __name__ == "__main__":
    main()
