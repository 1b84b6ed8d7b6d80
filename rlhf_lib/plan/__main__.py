"""What a run will need, before it is started: `python -m rlhf_lib.plan`, or `make plan`.

Of each stage that runs a model: parameters, and memory of one device by part, in the phase that takes most; of those
that train also tokens, FLOPs, and the time on this machine, from a measurement of about 20 seconds. What is needed is
counted in `estimate.py`, the memory in `phases.py` and `memory.py`, FLOPs and time in `speed.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lib.check.sections import check_all, valid_sections
from rlhf_lib.common import environment
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.data import lengths
from rlhf_lib.data.lengths import Lengths

if TYPE_CHECKING:
    from rlhf_lib.plan.estimate import Planned
    from rlhf_lib.plan.speed import Rates

GIB = 2**30
SAMPLING = "evaluate, best_of_n and attainable"


def number(value: float) -> str:
    """Three digits, with k, M, G, T, P or E."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if value < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}E"


def duration(seconds: float | None) -> str:
    """Seconds as text, in seconds, minutes or hours."""
    if seconds is None:
        return "-"
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def table(planned: Sequence[Planned], seconds: Sequence[float | None]) -> str:
    """One line a stage, at most 120 columns; memory in MiB, at the peak, which the phase `at` has."""
    titles = ("stage", "trained", "of", "at", "weights", "grads", "optim", "activ", "cache", "libs", "MiB", "tokens",
              "sampled", "FLOP", "time")  # fmt: skip
    rows: list[tuple[str, ...]] = [titles]
    for plan, took in zip(planned, seconds, strict=True):
        parts = plan.parts
        sizes = (*dataclasses.astuple(parts)[1:], parts.libraries, parts.total)
        counts = [number(count) if plan.trained else "-" for count in (plan.tokens, plan.sampled, plan.flops)]
        memory = (f"{size / 2**20:.0f}" for size in sizes)
        of = (number(plan.trained), number(plan.parameters), plan.peak.name)
        rows.append((plan.stage, *of, *memory, *counts, duration(took)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(" ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def warnings(planned: Sequence[Planned], free: float) -> list[str]:
    """One line for each stage that does not fit, with what to change."""
    return [
        f"{plan.stage} does not fit: {plan.parts.total / GIB:.1f} GiB of {free / GIB:.1f} GiB ({plan.peak.name}); try "
        f"{plan.advice}"
        for plan in planned
        if plan.parts.total > free
    ]


def notes(
    planned: Sequence[Planned], sections: Mapping[str, Any], seconds: Sequence[float | None], rates: Rates
) -> Iterator[str]:
    """What the table rests on, and what is not in it: the time in all, and that of the evaluation."""
    from rlhf_lib.plan import data

    if any(plan.assumed for plan in planned):
        others = " but of other params" if any(Path(file).is_file() for file in data.FILES["sft"]) else ""
        yield (
            f"No data yet{others}: {data.ASSUMED_ROWS} rows or pairs of the greatest length are assumed. Run make data "
            "first\nfor tokens, FLOP and time that are yours."
        )
    tokens = data.evaluation_tokens(sections)
    evaluation = tokens / rates.sampled if rates.sampled else None
    sampling = "evaluate, best_of_n, attainable and candidates" if sections["methods"].rft else SAMPLING
    yield (
        f"{sampling} sample {number(tokens)} tokens besides"
        + (f": {duration(evaluation)}." if evaluation else ".")
        + " All answers are taken to be as long as they may be."
    )
    trained = [took for plan, took in zip(planned, seconds, strict=True) if plan.trained]
    if evaluation and None not in trained:
        yield f"In all about {duration(sum(filter(None, trained)) + evaluation)}."
    yield "FLOP: 6 a weight and token (4 if frozen, 2 forwards), and attention; with validation, but for PPO's."
    yield "Tokens, FLOP and time are of all processes together, memory is of one."


def main() -> None:
    """Print the plan of every stage that runs a model."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.plan", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--no-measure", action="store_true", help="no measurement, and so no times")
    parser.add_argument("--gpu-gb", type=float, help="plan for a GPU of so many GB (10^9 bytes) that is not here")
    arguments = parser.parse_args()
    if arguments.gpu_gb is not None and not 0 < arguments.gpu_gb < math.inf:
        parser.error("--gpu-gb must be above 0")
    params = load_yaml(PARAMS_FILE)
    check_all(params)
    sections = valid_sections(params)
    environment.prepare()
    from rlhf_lib.models import hardware
    from rlhf_lib.plan import data, estimate, speed
    from rlhf_lib.plan.device import Device

    if arguments.gpu_gb:
        device = Device.gpu(arguments.gpu_gb, sections["compute"].precision)
    else:
        hardware.use(sections["compute"])
        device = Device.here()
    length = Lengths(sections["base"], sections["prepare"])
    planned = estimate.plans(sections, length, device)
    batches = {plan.stage: plan.batch for plan in planned if plan.batch}
    no_rates = arguments.no_measure or arguments.gpu_gb
    rates = speed.NO_RATES if no_rates else speed.measure(params, device.free, batches)
    seconds = [rates.seconds(plan.stage, plan.flops, plan.sampled, plan.optimizer_steps) for plan in planned]
    bits = "fp32" if device.value == 4 else "bf16 or fp16"
    print(f"Lengths are {length.told}.")
    print(f"On one {device.kind}, {bits}, {device.free / GIB:.1f} GiB free; memory at the peak in MiB:\n")
    print(table(planned, seconds) + "\n")
    lines = notes(planned, sections, seconds, rates)
    held = list(lengths.told(sections, data.measured(length), length.around()))
    print(*lines, *(["", *held, ""] if held else []), *warnings(planned, device.free), sep="\n")


if __name__ == "__main__":
    main()
