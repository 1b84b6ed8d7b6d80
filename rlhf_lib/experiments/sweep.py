"""Queue a sweep as DVC experiments: PPO's KL coefficients, DPO's betas and so on, each with several seeds.

    python -m rlhf_lib.experiments.sweep --ppo 0.05,0.2 --dpo 0.1,0.5 --seeds 0,1
    dvc exp run --run-all

An experiment's name says what it is, as sweep-ppo-kl0.2-seed0. One that the commit has already, or that waits in the
queue, is not queued again; so the same command goes on with a sweep that was stopped, and a longer one adds to it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from rlhf_lib.check.sections import SECTIONS, check_all
from rlhf_lib.common.place import inside
from rlhf_lib.common.policies import COEFFICIENTS, METHODS, section
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.terminal import listed
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.experiments.__main__ import output


class Point(NamedTuple):
    """One run of a sweep."""

    policy: str
    coefficient: float
    seed: int
    turned_on: tuple[str, ...] = ()  # the methods that it needs, and params.yaml does not want

    @property
    def name(self) -> str:
        return f"sweep-{self.policy}-{METHODS[self.policy].coefficient_label}{self.coefficient:.12g}-seed{self.seed}"

    @property
    def params(self) -> dict[str, float | int]:
        """What it sets in the method's section of params.yaml."""
        key = COEFFICIENTS[self.policy]
        is_count = get_type_hints(SECTIONS[section(self.policy)])[key] is int and self.coefficient.is_integer()
        return {key: int(self.coefficient) if is_count else self.coefficient, "seed": self.seed}

    def queue(self) -> None:
        """Queue it, with `select` as the last stage: the report and the judges are left out."""
        settings = [f"policy={self.policy}", *(f"methods.{method}=true" for method in self.turned_on)]
        settings += [f"{section(self.policy)}.{key}={value}" for key, value in self.params.items()]
        flags = [word for setting in settings for word in ("-S", setting)]
        output("dvc", "exp", "run", "--queue", "--name", self.name, *flags, "select")


def points(coefficients: Mapping[str, Sequence[float]], seeds: Sequence[int]) -> list[Point]:
    """Every coefficient of every method with every seed; a `ParamsError` for what params.yaml must not hold."""
    params = load_yaml(PARAMS_FILE)
    wanted, swept = params["methods"], []
    for policy, values in coefficients.items():
        off = tuple(name for name in needed(policy) if not wanted[name])
        swept += [Point(policy, value, seed, off) for value in values for seed in seeds]
    for point in swept:
        check_all(with_setting(params, point.policy, point.params), PARAMS_FILE)
    return list(dict.fromkeys(swept))


def needed(policy: str) -> tuple[str, ...]:
    """The methods that must be on for a policy: itself and, of a control, that whose section it has."""
    return tuple(dict.fromkeys((section(policy), policy)))


def with_setting(params: Mapping[str, Any], policy: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The params of an experiment that trains a policy with other values in its section."""
    methods, name = {**params["methods"], **dict.fromkeys(needed(policy), True)}, section(policy)
    return {**params, "methods": methods, name: {**params[name], **values}}


def finished() -> set[str]:
    """The names of the commit's experiments."""
    return set(output("dvc", "exp", "list", "--name-only").split())


def check_workspace(policies: Sequence[str], free: str = "") -> None:
    """A `SystemExit` unless everything is committed, but for a file that is `free`, and the pipeline up to the policies
    was run."""
    # as seen from the repository's root, of all of which an experiment is a commit
    entries = output("git", "status", "--porcelain", "--no-renames", "-z").split("\0")
    changed = [name for entry in entries if (name := entry[3:]) not in ("", (inside() / free).as_posix())]
    if changed:
        raise SystemExit(f"experiments start from a commit; not committed: {listed(changed)}; git add -A && git commit")
    stages = [f"measure@{name}" for name in ("sft", "best_of_n", *policies)]
    status = json.loads(output("dvc", "status", "--json", "--with-deps", *stages))
    if set(status) - {"inputs"}:  # which always runs
        raise SystemExit(
            "the pipeline has not run here as params.yaml and the code are now; dvc checkout where only its files are "
            "gone, dvc pull where it ran on another machine, else dvc repro; commit, and try again"
        )


def check_letters() -> None:
    """A `SystemExit` where DVC (3.67.1) cannot make the copies of the project that queued experiments run in.

    It writes the configuration of a copy in ASCII: git's, its own, and the cache's path. Where one has other letters
    every experiment fails before its first stage, and `dvc exp run --run-all` waits for it without end.
    """
    cache = os.path.abspath(output("dvc", "cache", "dir").strip())
    if not cache.isascii():
        raise SystemExit(
            f"{cache}: DVC queues experiments only where the cache's path is ASCII; move the project, or the cache "
            "(and then: dvc cache dir --local DIR)"
        )
    # which DVC copies for each experiment; git's is not in .git of a worktree, nor of a folder of a repository
    for file in (Path(output("git", "rev-parse", "--git-path", "config").strip()), Path(".dvc/config.local")):
        if file.is_file() and not file.read_bytes().isascii():
            raise SystemExit(
                f"{file}: DVC queues experiments only where this file is ASCII; names of people may stand in git's "
                "global configuration (git config --global user.name NAME)"
            )


def existing() -> set[str]:
    """Names of the experiments that HEAD has, or that wait or run; a `SystemExit` where one runs without a worker."""
    queue = output("dvc", "queue", "status")
    tasks = [words for line in queue.splitlines() if len(words := line.split()) > 2]
    waiting = {words[1] for words in tasks if words[-1] == "Queued"}
    running = {words[1] for words in tasks if words[-1] == "Running"}
    if running and "Worker status: 0 active" in queue:
        names = " ".join(sorted(running))
        raise SystemExit(f"DVC's worker was killed while it ran {names}: dvc queue kill {names}, and try again")
    return finished() | waiting | running


def _numbers(kind: type) -> Callable[[str], list[Any]]:
    def parse(text: str) -> list[Any]:
        try:
            return [kind(part) for part in text.split(",") if part.strip()]
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r}: must be numbers with commas between, such as 0,1") from None

    return parse


def main() -> None:
    """Queue the experiments of a sweep."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.experiments.sweep", description=__doc__.split("\n", 1)[0])
    for method, key in COEFFICIENTS.items():
        about = f"values of {section(method)}.{key}, with commas between"
        parser.add_argument(f"--{method}", type=_numbers(float), default=[], metavar="VALUES", help=about)
    parser.add_argument("--seeds", type=_numbers(int), default=[0], help="the methods' seeds")
    arguments = parser.parse_args()
    swept = points({method: getattr(arguments, method) for method in COEFFICIENTS}, arguments.seeds)
    if not swept:
        values = ", ".join(f"of {section(method)}.{key} (--{method})" for method, key in COEFFICIENTS.items())
        raise SystemExit(f"nothing to sweep: give values {values}, and seeds (--seeds)")
    check_letters()
    there = existing()
    check_workspace(sorted({point.policy for point in swept}))
    for point in swept:
        if point.name in there:
            print(f"{point.name}: there already", flush=True)
        else:
            point.queue()
            print(f"{point.name}: queued", flush=True)


if __name__ == "__main__":
    main()
