"""Asking a language model behind an OpenAI-compatible endpoint, each question once for all runs.

Replies are kept in `checkpoints/llm_judge_cache/`, which outlives the stage: one JSON file each, under the hash of
all that the reply depends on. The key to the endpoint goes nowhere but into the requests.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from rlhf_lib.common import environment
from rlhf_lib.common.rows import EXCERPT, Message
from rlhf_lib.llm_judge.params import LLMJudgeParams

if TYPE_CHECKING:
    from openai import APIError, APIStatusError, AsyncOpenAI

OPENAI_HOST = "api.openai.com"
KEPT = "replies so far are kept; dvc repro llm_judge resumes from there"

Request = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What came back: the text, whether the model or the server declined to answer, and the tokens it was counted."""

    text: str
    refused: bool
    prompt_tokens: int | None
    completion_tokens: int | None


class Fault(Exception):
    """The server did not answer as it should; the text says what it said and what to do."""


class ReplyCache:
    """Replies on disk, each written at once: a kill leaves whole files only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> Reply | None:
        """The reply kept under a key; None where there is none, or none that can be read."""
        try:
            return Reply(**json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, key: str, reply: Reply) -> None:
        # a name of its own: two runs may write the same reply at the same time
        unfinished = self.folder / f"{key}.{uuid.uuid4().hex}.tmp"
        unfinished.write_text(json.dumps(dataclasses.asdict(reply)) + "\n", encoding="utf-8")
        os.replace(unfinished, self.folder / f"{key}.json")


def cache_folder() -> Path:
    """Where replies are kept, outside the outs: a judge is paid once for a question."""
    return environment.project() / "checkpoints" / "llm_judge_cache"


def request(params: LLMJudgeParams, messages: list[Message]) -> Request:
    """The body of the request."""
    # OpenAI's newer models know max_completion_tokens only; other servers, max_tokens.
    limit = "max_completion_tokens" if _is_openai(params) else "max_tokens"
    body: Request = {"model": params.model, "messages": messages, limit: params.max_tokens}
    return body if params.temperature is None else body | {"temperature": params.temperature}


def cache_key(params: LLMJudgeParams, body: Request) -> str:
    """SHA-256 of the endpoint's address and the body."""
    text = json.dumps([str(params.base_url).rstrip("/"), body], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def ask(params: LLMJudgeParams, cache: ReplyCache, questions: Sequence[list[Message]]) -> list[Reply]:
    """The reply to each of the questions (no two equal); those whose reply is in the cache are not asked.

    A server that fails, and an interrupt, are a `SystemExit` of one line; the replies until then are in the cache.
    """
    bodies = [request(params, messages) for messages in questions]
    keys = [cache_key(params, body) for body in bodies]
    known = {key: reply for key in keys if (reply := cache.get(key)) is not None}
    missing = {key: body for key, body in zip(keys, bodies, strict=True) if key not in known}
    print(f"{len(known)} verdicts are known from earlier runs, {len(missing)} are asked of {params.model}", flush=True)
    if missing:
        known |= _ask_missing(Endpoint(params), missing, cache)
    return [known[key] for key in keys]


def _ask_missing(endpoint: Endpoint, missing: Mapping[str, Request], cache: ReplyCache) -> dict[str, Reply]:
    try:
        return asyncio.run(_ask_all(endpoint, missing, cache))
    except KeyboardInterrupt:
        raise SystemExit(f"llm_judge: interrupted; {KEPT}") from None
    except ExceptionGroup as group:
        fault = group.exceptions[0]
        if not isinstance(fault, Fault | OSError):
            raise
        raise SystemExit(f"llm_judge: {' '.join(str(fault).split())}; {KEPT}") from None


async def _ask_all(endpoint: Endpoint, missing: Mapping[str, Request], cache: ReplyCache) -> dict[str, Reply]:
    """The reply to each of `missing`, put into the cache as it comes, `concurrency` at a time."""
    replies: dict[str, Reply] = {}
    queue = iter(missing.items())
    with tqdm(total=len(missing), desc="Judging", unit="verdict", disable=None) as bar:

        async def work(client: AsyncOpenAI) -> None:
            for key, body in queue:
                replies[key] = await endpoint.reply(client, body)
                cache.put(key, replies[key])
                bar.update()

        async with endpoint.client() as client, asyncio.TaskGroup() as group:
            for _ in range(min(endpoint.params.concurrency, len(missing))):
                group.create_task(work(client))
    return replies


class Endpoint:
    """The server that the params name, and the key to it."""

    def __init__(self, params: LLMJudgeParams) -> None:
        self.params = params
        self.key = os.environ.get(params.api_key_env, "").strip()
        where = f"the environment variable {params.api_key_env}"
        if not self.key and _is_openai(params):
            raise SystemExit(f"llm_judge: {OPENAI_HOST} wants a key; put it into {where}")
        if not (self.key.isascii() and self.key.isprintable()) or " " in self.key:
            raise SystemExit(f"llm_judge: {where} holds no key, but text with spaces or unprintable characters")

    def client(self) -> AsyncOpenAI:
        """OpenAI's client of the endpoint, which tries nothing again by itself."""
        from openai import AsyncOpenAI

        params = self.params
        return AsyncOpenAI(
            api_key=self.key or "none",  # with None it would take OPENAI_API_KEY, which may be for another server
            base_url=params.base_url,
            timeout=params.timeout,
            max_retries=params.max_retries,
        )

    def _headers(self) -> dict[str, Any]:
        """Leaves out what the client takes from the environment but is not for this server."""
        from openai import Omit

        names = [] if self.key else ["Authorization"]
        names += [] if _is_openai(self.params) else ["OpenAI-Organization", "OpenAI-Project"]
        return {name: Omit() for name in names}

    async def reply(self, client: AsyncOpenAI, body: Request) -> Reply:
        """The reply to one request, which the client tries again after an error in passing; else a `Fault`."""
        import openai

        url = self.params.base_url
        try:
            create = client.chat.completions.with_raw_response.create
            response = await create(**body, extra_headers=self._headers())
        except openai.APIStatusError as error:
            if error.code == "content_filter":  # how Azure declines a prompt
                return Reply("", True, 0, 0)
            raise Fault(f"{url} answered {error.status_code}{_tries(error)}: {self._status_fault(error)}") from None
        except openai.APITimeoutError as error:
            limit = f"{self.params.timeout:g} seconds{_tries(error)}"
            raise Fault(f"{url} did not answer within {limit}; raise llm_judge.timeout") from None
        except openai.APIConnectionError as error:
            why = self._excerpt(str(error.__cause__))
            raise Fault(f"{url} can't be reached{_tries(error)}: {why}; is the server running there?") from None
        try:
            return parse(response.text)
        except ValueError:
            said = self._excerpt(response.text) or "nothing"
            raise Fault(f"{url} answered, but with no chat completion: {said}; check llm_judge.base_url") from None

    def _status_fault(self, error: APIStatusError) -> str:
        """What the server said with an error's status, and what to do."""
        said: Any = error.body
        if isinstance(said, Mapping):
            said = said.get("message") or said.get("detail") or dict(said)
        ways = {
            401: f"put a valid key into the environment variable {self.params.api_key_env}",
            403: f"the key in the environment variable {self.params.api_key_env} may not use {self.params.model}",
            404: "check llm_judge.model and llm_judge.base_url, which with most servers ends in /v1",
            429: "wait, lower llm_judge.concurrency or raise llm_judge.max_retries",
        }
        usual = "see the server's log" if error.status_code >= 500 else "check the llm_judge section of params.yaml"
        return f"{self._excerpt(str(said))}; {ways.get(error.status_code, usual)}"

    def _excerpt(self, text: str) -> str:
        """The start of a server's text, without the key that it may repeat."""
        return (text.replace(self.key, "***") if self.key else text)[:EXCERPT]


def _is_openai(params: LLMJudgeParams) -> bool:
    return urlsplit(params.base_url or "").hostname == OPENAI_HOST


def _tries(error: APIError) -> str:
    """How often the client tried, where it was more than once: it notes that in a header."""
    retries = int(error.request.headers.get("x-stainless-retry-count", 0))
    return f" in {retries + 1} tries" if retries else ""


def parse(text: str) -> Reply:
    """The reply in the body of an answer; a ValueError if it holds none."""
    try:
        answer = json.loads(text)
        choice = answer["choices"][0]
        content, refusal = choice["message"].get("content"), choice["message"].get("refusal")
        usage = answer.get("usage") or {}
        counts = [usage.get(f"{kind}_tokens") for kind in ("prompt", "completion")]
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("no chat completion") from error
    said = content if isinstance(content, str) else str(refusal or "")
    return Reply(
        text=said.encode("utf-8", "replace").decode(),  # JSON can spell half a surrogate pair, UTF-8 can't
        refused=bool(refusal) or choice.get("finish_reason") == "content_filter",
        prompt_tokens=counts[0] if isinstance(counts[0], int) else None,
        completion_tokens=counts[1] if isinstance(counts[1], int) else None,
    )
