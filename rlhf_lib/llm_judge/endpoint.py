"""The server that the params name, as OpenAI's client reaches it, and what to say when it fails.

The key to it goes nowhere but into the requests: whatever the server says is masked before it is kept or told.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
import openai
from openai import APIError, APIStatusError, AsyncOpenAI, Omit

from rlhf_lib.common.rows import EXCERPT
from rlhf_lib.llm_judge.masking import Mask
from rlhf_lib.llm_judge.params import LLMJudgeParams
from rlhf_lib.llm_judge.protocol import OPENAI_HOST, Reply, Request, is_openai, parse
from rlhf_lib.llm_judge.transport import BoundedClient, Fault

LONGEST_TOKEN = 1000  # characters; known vocabularies have none of more than a few hundred
MOST_READ = 100_000  # characters of a server's text that are looked through for the key before it is cut


class Endpoint:
    """The server that the params name, and the key to it."""

    def __init__(self, params: LLMJudgeParams) -> None:
        self.params = params
        self.key = os.environ.get(params.api_key_env, "").strip()
        where = f"the environment variable {params.api_key_env}"
        if not self.key and is_openai(params):
            raise SystemExit(f"llm_judge: {OPENAI_HOST} wants a key; put it into {where}")
        if not (self.key.isascii() and self.key.isprintable()) or " " in self.key:
            raise SystemExit(f"llm_judge: {where} holds no key, but text with spaces or unprintable characters")
        self._mask = Mask(self.key)

    def client(self) -> AsyncOpenAI:
        """OpenAI's client of the endpoint; a `Fault` where the environment does not let it be made."""
        params = self.params
        try:
            home = httpx2.URL(str(params.base_url)).origin
        except httpx2.InvalidURL as error:
            raise Fault(f"llm_judge.base_url: {params.base_url} is no address: {error}") from None
        try:
            http_client = BoundedClient(home, params.timeout)
        except httpx2.InvalidURL:  # without its text, which may hold a part of the proxy's password
            raise Fault(f"{_proxies()} in the environment is no address of a proxy; mend or unset it") from None
        except (ImportError, ValueError) as error:  # SOCKS without its package; an unknown kind
            raise Fault(f"{_proxies()} in the environment can't be used; change or unset it: {error}") from None
        except OSError as error:
            names = "SSL_CERT_FILE or SSL_CERT_DIR"
            raise Fault(f"{names} in the environment holds no certificates; mend or unset it: {error}") from None
        return AsyncOpenAI(
            api_key=self.key or "none",  # with None it would take OPENAI_API_KEY, which may be for another server
            base_url=params.base_url,
            timeout=params.timeout,
            max_retries=params.max_retries,
            http_client=http_client,
        )

    def _headers(self) -> dict[str, Any]:
        """Leaves out what the client takes from the environment but is not for this server."""
        names = [] if self.key else ["Authorization"]
        names += [] if is_openai(self.params) else ["OpenAI-Organization", "OpenAI-Project"]
        return {name: Omit() for name in names}

    async def reply(self, client: AsyncOpenAI, body: Request) -> Reply:
        """The reply to one request, which the client tries again after an error in passing; else a `Fault`."""
        url = self.params.base_url
        try:
            create = client.chat.completions.with_raw_response.create
            response = await create(**body, extra_headers=self._headers())
        except Fault as fault:
            raise Fault(f"{url} {self._excerpt(str(fault))}") from None
        except openai.APIStatusError as error:
            if error.code == "content_filter":  # how Azure declines a prompt
                return Reply("", True, 0, 0)
            raise Fault(f"{url} answered {error.status_code}{_tries(error)}: {self._status_fault(error)}") from None
        except openai.APITimeoutError as error:
            limit = f"{self.params.timeout:g} seconds{_tries(error)}"
            raise Fault(f"{url} did not answer within {limit}; raise llm_judge.timeout") from None
        except openai.APIConnectionError as error:
            raise Fault(f"{url} {self._connection_fault(error)}") from None
        try:
            return self._to_keep(parse(response.content))
        except ValueError:
            said = self._excerpt(response.text) or "nothing"
            raise Fault(f"{url} answered, but with no chat completion: {said}; check llm_judge.base_url") from None

    def _to_keep(self, reply: Reply) -> Reply:
        """The reply without the key; a `Fault` if it is longer than what was asked for can be."""
        most = LONGEST_TOKEN * self.params.max_tokens
        if len(reply.text) > most:
            raise Fault(
                f"{self.params.base_url} replied with {len(reply.text)} characters, more than {self.params.max_tokens} "
                f"tokens can be; see why it does not stop at llm_judge.max_tokens, or raise that"
            )
        return dataclasses.replace(reply, text=self._mask(reply.text))

    def _connection_fault(self, error: APIError) -> str:
        """What became of the connection, and what to do."""
        why, tries = self._excerpt(str(error.__cause__)), _tries(error)
        if isinstance(error.__cause__, httpx2.ProtocolError):
            return f"did not answer in whole HTTP{tries}: {why}; is it an OpenAI-compatible server?"
        proxy = _proxies(self.params.base_url)
        way = (
            f"is the proxy in {proxy} right, or should NO_PROXY name this host?"
            if proxy
            else "is the server running there?"
        )
        return f"can't be reached{tries}: {why}; {way}"

    def _status_fault(self, error: APIStatusError) -> str:
        """What the server said with an error's status, and what to do."""
        said: Any = error.body
        if isinstance(said, Mapping):
            said = said.get("message") or said.get("detail")
        if not isinstance(said, str):
            said = error.response.text
        ways = {
            401: f"put a valid key into the environment variable {self.params.api_key_env}",
            403: f"the key in the environment variable {self.params.api_key_env} may not use {self.params.model}",
            404: "check llm_judge.model and llm_judge.base_url, which with most servers ends in /v1",
            429: "wait, lower llm_judge.concurrency or raise llm_judge.max_retries",
        }
        usual = "see the server's log" if error.status_code >= 500 else "check the llm_judge section of params.yaml"
        return f"{self._excerpt(said) or 'nothing'}; {ways.get(error.status_code, usual)}"

    def _excerpt(self, text: str) -> str:
        """The start of a server's text; masked first, since a cut could leave of the key what is not recognised."""
        return self._mask(text[:MOST_READ])[:EXCERPT]


def _proxies(url: str | None = None) -> str:
    """The environment variables that name a proxy (for an address alone, if one is given); empty without."""
    parts = urlsplit(url or "")
    if parts.hostname and proxy_bypass(parts.hostname):
        return ""
    schemes = [scheme for scheme in ("http", "https", "all") if getproxies().get(scheme)]
    return " or ".join(f"{scheme.upper()}_PROXY" for scheme in schemes if not url or scheme in (parts.scheme, "all"))


def _tries(error: APIError) -> str:
    """How often the client tried, where it was more than once: it notes that in a header."""
    retries = int(error.request.headers.get("x-stainless-retry-count", 0))
    return f" in {retries + 1} tries" if retries else ""
