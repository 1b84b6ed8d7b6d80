"""Downloads from the Hugging Face hub: tried again where that helps, explained in one line where it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

WAITS = (1.0, 2.0, 4.0)  # seconds before the second, third and fourth try

Result = TypeVar("Result")


def explain(error: BaseException, repo_id: str, revision: str | None, kind: str, otherwise: str) -> str | None:
    """One line on what is wrong and what to do, if `error` came from the hub or from the way to it; else None.

    kind: dataset or model. otherwise: what the user may do instead of a download.
    """
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import httpx

    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    at = f" --revision {revision}" if revision else ""
    instead = f"run `hf download {repo_id} --repo-type {kind}{at}` where there is a network and set HF_HOME to a copy"
    if cause(error, errors.GatedRepoError):
        return f"{kind} {repo_id} is gated; accept its terms on {page}, and set HF_TOKEN to a token of that account"
    if cause(error, errors.RevisionNotFoundError):
        return f"{kind} {repo_id} has no revision {revision}; take a commit from {page}/commits/main"
    if cause(error, errors.RepositoryNotFoundError):
        return f"no {kind} {repo_id} on the hub, or a private one; correct the id, set HF_TOKEN, or {otherwise}"
    if constants.is_offline_mode() and cause(error, errors.LocalEntryNotFoundError):
        where = f"the cache{f' at {revision}' if revision else ''}, and HF_HUB_OFFLINE is set"
        return f"{kind} {repo_id} is not in {where}; unset it, {instead} of that cache, or {otherwise}"
    if (fault := cause(error, errors.HfHubHTTPError)) and not isinstance(fault, errors.EntryNotFoundError):
        status = f"HTTP {fault.response.status_code} {fault.response.reason_phrase}".rstrip()
        advice = "check HF_TOKEN" if fault.response.status_code in (401, 403) else "try again later"
        return f"the hub answers {status} for {kind} {repo_id}; {advice}, or {otherwise}"
    if fault := cause(error, httpx.TransportError):
        reason = f"{constants.ENDPOINT} ({type(fault).__name__})"
        return f"cannot reach the hub at {reason}; check the connection, {instead} of that cache, or {otherwise}"
    return None


def patiently(fetch: Callable[[], Result]) -> Result:
    """What `fetch` gives; it is called again, after a wait, where the hub or the connection failed in passing."""
    for wait in WAITS:
        try:
            return fetch()
        except Exception as error:
            if not _is_transient(error):
                raise
            time.sleep(wait)
    return fetch()


def _is_transient(error: Exception) -> bool:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils import httpx

    if cause(error, LocalEntryNotFoundError):  # huggingface_hub has tried again itself
        return False
    if fault := cause(error, HfHubHTTPError):
        return fault.response.status_code in (408, 429) or fault.response.status_code >= 500
    return cause(error, httpx.TransportError) is not None


def cause(error: BaseException | None, kind: type[BaseException]) -> Any:
    """The first error of a kind among `error` and what it came from."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def one_line(error: BaseException) -> str:
    """The beginning of what an error says."""
    return " ".join(str(error).split())[:200]
