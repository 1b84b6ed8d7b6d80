"""Apply presets to params.yaml, or print them as flags for `dvc exp run`.

    python -m rlhf_lib.preset                           list the presets, and say which of them params.yaml is
    python -m rlhf_lib.preset gpt2                      write params.yaml anew, and print what changed
    python -m rlhf_lib.preset gpt2 my-lora              lay the second over the first
    python -m rlhf_lib.preset gpt2 --flags              print -S flags instead, and change nothing
    python -m rlhf_lib.preset local 'load.sources=[{reader: file, path: my.jsonl}]'    set more keys with it
    python -m rlhf_lib.preset sft.seed=1                set a key beside what params.yaml is
    python -m rlhf_lib.preset demo                      back to the demo

A preset is a whole: it starts from the demo's values, whatever params.yaml holds, and its name and the settings given
with it are written into the file's header. What you changed in the file yourself is not dropped without --force.
"""

from __future__ import annotations

import argparse
from typing import Any

from rlhf_lib.check.sections import check_all
from rlhf_lib.common.files import replacing
from rlhf_lib.common.schema import PARAMS_FILE, shown
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.preset.overlay import PRESETS, difference, flags, names
from rlhf_lib.preset.state import DEMO, Current, Origin, current

NAMED = 3  # changes that a refusal names


def listing() -> list[str]:
    """A line for each preset, and one on params.yaml."""
    lines = [f"{DEMO:25} the offline demo; the others lie over it"]
    for name in names():
        first_line = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").split("\n", 1)[0]
        lines.append(f"{name:25} {first_line.lstrip('# ')}")
    now = current()
    edits = f", and edited since: {', '.join(now.edits)}" if now.edits else ""
    return [*lines, f"{PARAMS_FILE} is: {now.fault or f'{now.origin or DEMO}{edits}'}"]


def lost(now: Current, params: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The edits of params.yaml that `params` would not hold."""
    missing = difference(now.params, params)
    return {name: pair for name, pair in now.edits.items() if name in missing}


def check_edits(now: Current, target: Origin, params: dict[str, Any]) -> None:
    """A `ParamsError` where something that the user wrote into params.yaml would be lost."""
    way = f"add --force to drop {{}}, and go on with {target}"
    if now.fault:
        raise ParamsError(f"{now.fault}; correct {PARAMS_FILE}, or {way.format('all that it holds')}")
    if edits := lost(now, params):
        told = [f"{name} ({_told(before)} -> {_told(after)})" for name, (before, after) in edits.items()]
        more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
        kept = [f"{name}={_told(value)}" for name, (_, value) in edits.items() if value is not ...]
        keep = f"to keep a value, give it with the preset ({kept[0]}), or " if kept else ""
        raise ParamsError(
            f"{PARAMS_FILE}: you changed {', '.join(told[:NAMED])}{more} since {now.origin or DEMO}; "
            f"{keep}{way.format('them')}"
        )
    if now.comments:
        raise ParamsError(
            f"{PARAMS_FILE}: has {len(now.comments)} comment lines of your own, such as {now.comments[0]!r}; "
            f"{way.format('them')}"
        )


def dropped(now: Current, params: dict[str, Any]) -> list[str]:
    """A line for each setting, edit and comment of the user that goes."""
    gone, origin = difference(now.params, params), now.origin or Origin()
    lines = []
    for setting in origin.settings:
        name = setting.partition("=")[0]
        if any(key == name or key.startswith(f"{name}.") for key in gone):
            lines.append(f"{setting} (given with {[DEMO, *origin.presets][-1]})")
    lines += [f"{name}={_told(value)} (your own)" for name, (_, value) in lost(now, params).items()]
    return [f"dropped: {line}" for line in [*lines, *now.comments, *([now.fault] if now.fault else [])]]


def main() -> None:
    """The command line: list, print or apply presets."""
    description = (__doc__ or "").split("\n", 1)[0]  # Python may leave it out
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.preset", description=description)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="preset",
        help="files in presets/, without .yaml, later over earlier ones, or demo; then settings: section.key=value "
        "(alone: set beside what params.yaml is)",
    )
    parser.add_argument("--flags", action="store_true", help="print -S flags for dvc exp run; change nothing")
    parser.add_argument("--force", action="store_true", help=f"drop what was edited in {PARAMS_FILE}")
    arguments = parser.parse_intermixed_args()  # options may stand between the words
    if not arguments.words:
        print("\n".join(listing()))
        return
    target, now = Origin.of_words(arguments.words), current()
    if "=" in arguments.words[0]:  # settings alone are set beside what is there
        target = (now.origin or Origin()).with_settings(target.settings)
    params = target.params()
    check_all(params, PARAMS_FILE)
    if not arguments.force:
        check_edits(now, target, params)
    if arguments.flags:
        check_all(now.params, PARAMS_FILE)  # what the flags will change
        print(" ".join(flags(now.params, params)))
        return
    with replacing(PARAMS_FILE) as file:
        file.write(target.text())
    print("\n".join([*dropped(now, params), *changes(now.params, params)]))


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """A line for each value that changed."""
    pairs = difference(before, after).items() if before else ()
    return [f"{name}: {_told(one)} -> {_told(other)}" for name, (one, other) in pairs] or ["no value changed"]


def _told(value: Any) -> str:
    if value is None or value is ...:
        return "null" if value is None else "nothing"
    return str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else shown(value)


if __name__ == "__main__":
    main()
