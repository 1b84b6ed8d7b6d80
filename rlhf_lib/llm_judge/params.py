"""The `llm_judge` section: a language model that compares the policies' answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from rlhf_lib.common.policies import POLICIES
from rlhf_lib.common.schema import Above, AtLeast, AtMost, Count, NewTokens, NotEmpty, NotNegative


@dataclass(frozen=True, kw_only=True)
class LLMJudgeParams:
    """The endpoint that judges, what it is asked, and how patiently."""

    base_url: str | None
    model: str | None
    api_key_env: str
    comparisons: Annotated[list[str], NotEmpty()]
    rubric: str
    max_prompts: Count
    temperature: NotNegative | None
    max_tokens: NewTokens
    timeout: Annotated[float, Above(0), AtMost(86_400)]
    max_retries: Annotated[int, AtLeast(0), AtMost(100)]
    concurrency: Annotated[int, AtLeast(1), AtMost(1000)]
    prompt_price: NotNegative | None
    completion_price: NotNegative | None

    def __post_init__(self) -> None:
        if self.base_url is not None:
            _check_url(self.base_url)
            if not self.model:
                raise ValueError("model: must be set while llm_judge.base_url is; the server knows its models' names")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            # without the value: it may be a key that was put here by mistake
            raise ValueError("api_key_env: must be the name of an environment variable; the key goes into the variable")
        for index, comparison in enumerate(self.comparisons):
            _check_comparison(comparison, f"comparisons[{index}]")
            if comparison in self.comparisons[:index]:
                raise ValueError(f"comparisons[{index}]: {comparison} stands there twice; remove one")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_address &= not re.search(r"\s", url)
    except ValueError:  # a port that is no number, a bracket that is not closed
        is_address = False
    if not is_address:
        raise ValueError(f"base_url: must be an address such as http://127.0.0.1:8000/v1, got {url!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("base_url: must be without user, password and query; a key goes into llm_judge.api_key_env")


def _check_comparison(comparison: str, name: str) -> None:
    first, _, second = comparison.partition("-")
    for policy in (first, second):
        if policy not in POLICIES:
            raise ValueError(
                f"{name}: must be two policies of {', '.join(POLICIES)}, such as ppo-sft, got {comparison!r}"
            )
    if first == second:
        raise ValueError(f"{name}: must be two different policies, got {comparison!r}")
