"""What goes to an OpenAI-compatible endpoint, and what of its answer counts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rlhf_lib.common.rows import Message
from rlhf_lib.llm_judge.params import LLMJudgeParams

OPENAI_HOST = "api.openai.com"
MOST_TOKENS = 10**9  # a server that counts more in one answer does not count

Request = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What came back: the text, whether the model or the server declined to answer, and the tokens it was counted."""

    text: str
    refused: bool
    prompt_tokens: int | None
    completion_tokens: int | None


def is_openai(params: LLMJudgeParams) -> bool:
    """Whether the endpoint is OpenAI's own."""
    return urlsplit(params.base_url or "").hostname == OPENAI_HOST


def request(params: LLMJudgeParams, messages: list[Message]) -> Request:
    """The body of the request."""
    # OpenAI's newer models know max_completion_tokens only; other servers, max_tokens.
    limit = "max_completion_tokens" if is_openai(params) else "max_tokens"
    body: Request = {"model": params.model, "messages": messages, limit: params.max_tokens}
    return body if params.temperature is None else body | {"temperature": params.temperature}


def cache_key(params: LLMJudgeParams, body: Request) -> str:
    """SHA-256 of the endpoint's address and the body."""
    text = json.dumps([str(params.base_url).rstrip("/"), body], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def parse(body: str | bytes) -> Reply:
    """The reply in the body of an answer, which is JSON in UTF-8; a ValueError if it holds none."""
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        content, refusal = choice["message"].get("content"), choice["message"].get("refusal")
        usage = answer.get("usage") or {}
        counts = [_count(usage.get(f"{kind}_tokens")) for kind in ("prompt", "completion")]
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("no chat completion") from error
    if not all(isinstance(text or "", str) for text in (content, refusal)):
        raise ValueError("no text")
    said = content if isinstance(content, str) else refusal or ""
    return Reply(
        text=said.encode("utf-8", "replace").decode(),  # JSON can spell half a surrogate pair, UTF-8 can't
        refused=bool(refusal) or choice.get("finish_reason") == "content_filter",
        prompt_tokens=counts[0],
        completion_tokens=counts[1],
    )


def _count(value: Any) -> int | None:
    """A number of tokens; None where it is none that can be."""
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
