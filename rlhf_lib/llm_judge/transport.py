"""The HTTP client under OpenAI's: each try stays within a time, a size and an origin, whatever the server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from openai import DefaultAsyncHttpxClient

MOST_BYTES = 4 << 20  # of a body: that of a model that thinks at length has a few hundred thousand
MOST_REDIRECTS = 5


class Fault(Exception):
    """The server did not answer as it should; the text says what it did and what to do."""


class BoundedClient(DefaultAsyncHttpxClient):
    """An HTTP client for a server at one origin (scheme, host and port).

    A try ends with a time-out (which OpenAI's client takes as a reason to try again) when the whole body is not there
    after `timeout` seconds: httpx's own time-outs begin anew with each byte. It ends with a `Fault` before a request
    to another origin, with a compressed body, which was not asked for and may be without bounds, and after
    `MOST_BYTES` of a body.
    """

    def __init__(self, origin: httpx2.Origin, timeout: float) -> None:
        self._origin = origin
        self._limit = timeout
        super().__init__(
            timeout=timeout,
            max_redirects=MOST_REDIRECTS,
            headers={"Accept-Encoding": "identity"},
            event_hooks={"request": [self._stay], "response": [self._bound]},
        )

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The response to a request with its whole body, redirects included."""
        try:
            async with asyncio.timeout(self._limit):
                return await super().send(request, **options)
        except TimeoutError:
            raise httpx2.ReadTimeout("not all of the answer in time", request=request) from None
        except httpx2.TooManyRedirects:
            raise Fault(f"redirects more than {MOST_REDIRECTS} times; check llm_judge.base_url") from None

    async def _stay(self, request: httpx2.Request) -> None:
        """Called with each request before any of it is sent."""
        if request.url.origin != self._origin:
            trust = "nothing was sent there; put its address into llm_judge.base_url if you trust it"
            raise Fault(f"redirects to another server ({trust}): {request.url.scheme}://{request.url.netloc.decode()}")

    async def _bound(self, response: httpx2.Response) -> None:
        """Called with each response before any of its body is read."""
        coding = response.headers.get("Content-Encoding", "").strip()
        if coding.lower() not in ("", "identity"):
            raise Fault(f"compresses its answers, although asked not to; switch that off there: {coding}")
        response.encoding = "utf-8"  # which JSON is in; a charset named by the server may be any codec of Python's
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _BoundedStream(response.stream)


class _BoundedStream(httpx2.AsyncByteStream):
    """A body of at most `MOST_BYTES`."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._stream:
            size += len(part)
            if size > MOST_BYTES:
                raise Fault(f"answers with more than {MOST_BYTES >> 20} MiB; check llm_judge.base_url")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
