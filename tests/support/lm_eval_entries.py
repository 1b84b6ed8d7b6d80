"""What metrics/lm_eval.json has of a model in a task, made up."""

from __future__ import annotations

from typing import Any


def about(**changes: Any) -> dict[str, Any]:
    settings = {
        "apply_chat_template": True,
        "documents": "d",
        "higher_is_better": {"acc": True},
        "limit": None,
        "lm_eval": "0.4.13",
        "model_md5": "m",
        "n": 100,
        "n_shot": 0,
        "seeds": [0],
        "version": "1",
    }
    return {**settings, **changes}


def entry(acc: float, se: float | None = 0.02, diff: float | None = None, diff_se: float | None = 0.01, **changes: Any):
    of_diff = {} if diff is None else {"acc_diff": diff, "acc_diff_se": diff_se}
    return {"acc": acc, "acc_se": se, **of_diff, "about": [about(**changes)]}


def rows(*values: float, metric: str = "acc") -> list[dict[str, Any]]:
    return [
        {"doc_id": i, "doc_hash": f"h{i}", "target_hash": "t", "filter": "none", metric: value}
        for i, value in enumerate(values)
    ]
