"""The command line of the benchmarks beside TRL."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class NamedCase(Protocol):
    """What is asked of a case here."""

    @property
    def needs_bf16(self) -> bool: ...


def parser(
    prog: str, description: str, cases: Mapping[str, NamedCase], measured: str, output: str
) -> argparse.ArgumentParser:
    """The options of all; `measured` are counted in pairs, `output` says what `--output` names."""
    made = argparse.ArgumentParser(prog=f"python -m {prog}", description=description)
    default = f"default: those that suit the machine of {', '.join(cases)}"
    made.add_argument("--cases", nargs="+", choices=cases, metavar="CASE", help=default)
    made.add_argument("--pairs", type=int, default=5, help=f"measured {measured} of each side (default: 5)")
    made.add_argument("--output", type=Path, help=f"{output}; only the cases that run are replaced")
    made.add_argument("--quick", action="store_true", help="toy sizes: shows that both sides run, measures nothing")
    return made


def parse(asked: argparse.ArgumentParser) -> argparse.Namespace:
    arguments = asked.parse_args()
    if arguments.pairs < 1:
        asked.error("--pairs: must be at least 1")
    return arguments


def suitable_cases(cases: Mapping[str, NamedCase], bf16: bool) -> list[str]:
    """The cases that run when none is named; without bf16 instructions one in bf16 can take an hour."""
    left_out = [name for name, case in cases.items() if case.needs_bf16 and not bf16]
    if left_out:
        print(f"no bf16 instructions, so left out unless named by --cases: {', '.join(left_out)}", file=sys.stderr)
    return [name for name in cases if name not in left_out]
