"""The numbers of the benchmarks beside TRL: from turns to a case's results, the results file, and the table."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from rlhf_lib.common.yaml import ParamsError

Update = Mapping[str, Any]  # what a worker reports of one update
Results = dict[str, Any]

CPUINFO = Path("/proc/cpuinfo")


def compare(peer: Sequence[Update], ours: Sequence[Update]) -> dict[str, Any]:
    """Speed and memory of pairs of updates: how many times as fast ours is, and how much of the memory it takes."""
    ratios = [p["cpu_seconds"] / o["cpu_seconds"] for p, o in zip(peer, ours, strict=True)]
    return {
        "pairs": len(ratios),
        "ratio": median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "memory_ratio": _peak(ours) / _peak(peer),
    }


def arithmetic(gflop: float, peer: Sequence[Update], ours: Sequence[Update]) -> dict[str, float]:
    """What part of the machine's rate of matrix products our updates of `gflop` reach, and the ratio that they would
    have if they reached all of it."""
    rates = [o["peak_gflops"] for o in ours]
    return {
        "gflop": gflop,
        "peak_gflops": median(rates),
        "peak_share": median(gflop / o["cpu_seconds"] / rate for o, rate in zip(ours, rates, strict=True)),
        "ratio_bound": median(p["cpu_seconds"] * rate / gflop for p, rate in zip(peer, rates, strict=True)),
    }


def timed_side(start: Mapping[str, Any], updates: Sequence[Update]) -> dict[str, Any]:
    """One side of a case: what it said at its start, medians over its updates, and its peak of memory."""
    return {
        **start,
        "seconds": median(update["cpu_seconds"] for update in updates),
        "seconds_each": [update["cpu_seconds"] for update in updates],
        "wall_seconds": median(update["wall_seconds"] for update in updates),
        "peak_mb": _peak(updates),
    }


def side(start: Mapping[str, Any], updates: Sequence[Update]) -> dict[str, Any]:
    """One side of a case of PPO: `timed_side`, and what its responses and phases came to."""
    return {
        **timed_side(start, updates),
        "response_tokens": median(update["response_tokens"] for update in updates),
        "rollout_tokens_per_second": median(
            update["response_tokens"] / update["phases"]["sampling"] for update in updates
        ),
        "phase_seconds": {
            phase: median(update["phases"][phase] for update in updates) for phase in updates[0]["phases"]
        },
    }


def _peak(updates: Sequence[Update]) -> float:
    return max(update["peak_mb"] for update in updates)


def machine(threads: int, peer_version: str) -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    libraries = {name: version(name) for name in ("torch", "transformers", "accelerate")}
    return {
        "cpu": cpu_model(),
        "bf16_instructions": has_bf16(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        **libraries,
        "trl": peer_version,
    }


def cpu_model(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name."""
    names = _cpu_fields(cpuinfo, "model name")
    return names[0] if names else platform.processor() or platform.machine()


def has_bf16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether the processor is known to multiply bf16 matrices itself."""
    flags = {flag for field in ("flags", "Features") for line in _cpu_fields(cpuinfo, field) for flag in line.split()}
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def _cpu_fields(cpuinfo: Path, name: str) -> list[str]:
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for key, _, value in pairs if key.strip() == name]


def read(path: Path) -> Results:
    """The results in a file; none where it does not exist."""
    if not path.exists():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def check_mergeable(old: Results, machine: Mapping[str, Any], names: Sequence[str]) -> None:
    """A `ParamsError` where cases that are kept were measured under other circumstances than the new ones."""
    kept = [name for name in old.get("cases", {}) if name not in names]
    changed = [key for key in machine if old.get("machine", {}).get(key) != machine[key]]
    if kept and changed:
        raise ParamsError(
            f"the results hold {', '.join(kept)} with another {', '.join(changed)}; run all cases, or give --output"
        )


def merge(old: Results, machine: Mapping[str, Any], cases: Mapping[str, Any]) -> Results:
    """The results with new ones in place of those of the same cases."""
    return {"machine": dict(machine), "cases": {**old.get("cases", {}), **cases}}


def table(results: Results, rate: str = "rollout_tokens_per_second") -> str:
    """The cases as a Markdown table; `rate` names the tokens per second that it shows."""
    header = (
        "| case | peer s | our s | ratio (low–high) | bound | share of peak | peer tok/s | our tok/s "
        "| peer MB | our MB | memory ratio |"
    )
    lines = [header, "|" + "---|" * (header.count("|") - 1)]
    for name, case in results["cases"].items():
        peer, ours = case["peer"], case["ours"]
        lines.append(
            f"| {name} | {peer['seconds']:.3g} | {ours['seconds']:.3g} "
            f"| {case['ratio']:.2f} ({case['ratio_low']:.2f}–{case['ratio_high']:.2f}) "
            f"| {' | '.join(f'{case[key]:.2f}' if key in case else '–' for key in ('ratio_bound', 'peak_share'))} "
            f"| {peer[rate]:.0f} | {ours[rate]:.0f} "
            f"| {peer['peak_mb']:.0f} | {ours['peak_mb']:.0f} | {case['memory_ratio']:.2f} |"
        )
    return "\n".join(lines)
