"""The project's experiments, as `dvc exp show --csv` tells them.

python -m rlhf_lib.experiments          their coefficients, seeds and headline numbers, in 120 columns
python -m rlhf_lib.experiments FILE     of a table that was saved (-: standard input)
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf_lib.common import paths
from rlhf_lib.common.policies import COEFFICIENTS, METHODS, section
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.preset.overlay import leaves
from rlhf_lib.report.tables import markdown_table

WIDTH = 120  # columns
BUSY = "Unable to acquire lock"  # what DVC says where another of its commands has held the repository for three seconds
TRIES, PAUSE = 30, 2.0  # then, with so many seconds between them
MOST_COMMITS = 3  # that are named
# what DVC sets before a column whose name another file has too, as a stage of the user's own or an older commit may
_PREFIX = re.compile(rf"^({re.escape(str(PARAMS_FILE))}:|{re.escape(paths.POLICY_METRICS)}:(?=eval\.))")
UNFINISHED = ("Queued", "Running", "Failed")

CsvRow = Mapping[str, str]


def read(source: str | None) -> list[CsvRow]:
    """The rows of a table: from a file, from standard input ("-"), or from DVC (None), which lists the experiments that
    start from the commit that is checked out. A `SystemExit` if it is none."""
    if source is None:
        print("dvc exp show reads the experiments: half a second for each new one", file=sys.stderr, flush=True)
    text = output("dvc", "exp", "show", "--csv") if source is None else _saved_table(source)
    if source is None and (told := elsewhere()):
        print(told, file=sys.stderr, flush=True)
    reader = csv.DictReader(text.splitlines())
    reader.fieldnames = [_PREFIX.sub("", column) for column in reader.fieldnames or ()]
    for column in ("Experiment", "rev", "typ", "policy"):
        if column not in reader.fieldnames:
            raise SystemExit(
                f"{source or 'dvc exp show'}: no column {column}; it must be what dvc exp show --csv prints"
            )
    return list(reader)


def elsewhere() -> str | None:
    """How many experiments start from other commits, as after a commit or on another branch, and how to see them."""
    refs = _git("for-each-ref", "--format=%(refname)", "refs/exps")
    starts = Counter(a + b for a, b in re.findall(r"^refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/", refs, re.MULTILINE))
    del starts[_git("rev-parse", "HEAD").strip()]
    if not starts:
        return None
    shown = " ".join(f"--rev {commit[:9]}" for commit, _ in starts.most_common(MOST_COMMITS))
    return (
        f"{starts.total()} experiments start from other commits ({len(starts)}) and are not listed; see them by "
        f"dvc exp show --csv {shown} | python -m rlhf_lib.experiments -"
    )


def _git(*words: str) -> str:
    """What git prints; nothing where it fails, as outside a repository."""
    return subprocess.run(["git", *words], capture_output=True, text=True).stdout


def output(*command: str) -> str:
    """What a command prints; a `SystemExit` with what it complains of where it fails. It waits for others of DVC's."""
    for trial in range(TRIES):
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            raise SystemExit(f"{command[0]}: not found; source .venv/bin/activate") from None
        if not done.returncode or BUSY not in done.stderr:
            break
        if not trial:
            print("another command of DVC's is at work here; this waits for it", file=sys.stderr, flush=True)
        time.sleep(PAUSE)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {' '.join(done.stderr.split())}")
    return done.stdout


def _saved_table(source: str) -> str:
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{source}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def is_experiment(row: CsvRow) -> bool:
    """Whether a row is an experiment, and not the workspace or a commit."""
    return row["typ"] != "baseline"


def name(row: CsvRow) -> str:
    """What an experiment is called: its name, or the beginning of its revision."""
    return row["Experiment"] or row["rev"]


def unfinished(row: CsvRow) -> str | None:
    """The state of an experiment that has no results yet, or will have none."""
    state = row.get("State")  # DVC leaves the column out where there is no experiment
    return state.lower() if state in UNFINISHED else None


def number(row: CsvRow, column: str) -> float | None:
    """What a cell holds, or None where the table has no such number, or one that is not finite."""
    try:
        found = float(row[column])
    except (KeyError, ValueError):
        return None
    return found if math.isfinite(found) else None


def coefficient(row: CsvRow) -> float | None:
    """What holds the experiment's policy near the SFT model: kl_coef of a PPO experiment, beta of a DPO one."""
    policy = row["policy"]
    return number(row, column(policy, COEFFICIENTS[policy])) if policy in COEFFICIENTS else None


def column(policy: str, key: str) -> str:
    """The column of a param of the section that the policy is trained by."""
    return f"{section(policy)}.{key}"


def seed(row: CsvRow) -> str:
    """The seed of the method that the experiment is about."""
    return row.get(column(row["policy"], "seed")) or ""


def param_columns() -> list[str]:
    """The columns of `dvc exp show --csv` that hold params; a metric may begin with a section's name too."""
    return [".".join(path) for path, _ in leaves(load_yaml(PARAMS_FILE))]


def changed(rows: Sequence[CsvRow]) -> list[str]:
    """A line for each experiment that sets params without a column otherwise than the commit it starts from, which DVC
    lists before it."""
    columns, said = param_columns(), []
    commit: CsvRow = {}
    for row in rows:
        if not is_experiment(row):
            commit = row
            continue
        policy = row["policy"]
        shown = {"policy", column(policy, "seed"), *(f"methods.{method}" for method in METHODS)}
        shown.add(column(policy, COEFFICIENTS.get(policy, "seed")))
        keys = (key for key in columns if key not in shown and row.get(key, "") not in ("", commit.get(key)))
        if params := " ".join(f"{key}={row[key]}" for key in keys):
            said.append(textwrap.shorten(f"{name(row)}: {params}", WIDTH, placeholder=" ..."))
    return sorted(said)


def table(rows: Sequence[CsvRow]) -> str:
    """One line an experiment, the commit that they start from first; below, the params that have no column."""
    measured = ("reward", "judge", "win_rate", "kl", "length", "gold")
    there = {row["policy"] for row in rows}
    kinds = list(dict.fromkeys(kind for policy, kind in COEFFICIENTS.items() if policy in there))
    header = ["experiment", "policy", *kinds, "seed", *measured]
    lines = []
    for row in sorted(rows, key=lambda row: (is_experiment(row), name(row))):
        policy = row["policy"]
        values = [row.get(column(policy, kind), "") if COEFFICIENTS.get(policy) == kind else "" for kind in kinds]
        lines.append([name(row), policy, *values, seed(row), *_numbers(row, measured)])
    others = changed(rows)
    return "\n".join([markdown_table(header, lines), *([""] if others else []), *others])


def _numbers(row: CsvRow, keys: Sequence[str]) -> list[str]:
    """The cells of the headline numbers; of an unfinished experiment, whose numbers are the commit's, the state."""
    if state := unfinished(row):
        return [state, *[""] * (len(keys) - 1)]
    numbers = [number(row, f"eval.{key}") for key in keys]
    return ["" if x is None else f"{x:.3f}" for x in numbers]


def main() -> None:
    """Print the experiments."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.experiments", description=__doc__.split("\n", 1)[0])
    parser.add_argument("file", nargs="?", help="a saved table; -: standard input; none: dvc exp show --csv is run")
    print(table(read(parser.parse_args().file)))


if __name__ == "__main__":
    main()
