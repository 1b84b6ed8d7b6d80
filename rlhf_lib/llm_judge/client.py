"""Asking a language model behind an OpenAI-compatible endpoint, each question once for all runs.

Replies are kept in `checkpoints/llm_judge_cache/`, which outlives the stage: one JSON file each, under the hash of
all that the reply depends on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from rlhf_lib.common import environment
from rlhf_lib.common.rows import Message
from rlhf_lib.common.terminal import visible
from rlhf_lib.llm_judge.params import LLMJudgeParams
from rlhf_lib.llm_judge.protocol import Reply, Request, cache_key, request

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from rlhf_lib.llm_judge.endpoint import Endpoint

KEPT = "replies so far are kept; dvc repro llm_judge resumes from there"


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
        known |= _ask_missing(params, missing, cache)
    return [known[key] for key in keys]


def _ask_missing(params: LLMJudgeParams, missing: Mapping[str, Request], cache: ReplyCache) -> dict[str, Reply]:
    from rlhf_lib.llm_judge.endpoint import Endpoint, Fault  # and with it OpenAI's client, which few runs need

    try:
        return asyncio.run(_ask_all(Endpoint(params), missing, cache))
    except KeyboardInterrupt:
        raise SystemExit(f"llm_judge: interrupted; {KEPT}") from None
    except (Fault, ExceptionGroup) as error:
        fault = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        if not isinstance(fault, Fault | OSError):
            raise
        raise SystemExit(f"llm_judge: {visible(' '.join(str(fault).split()))}; {KEPT}") from None


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
