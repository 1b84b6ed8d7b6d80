"""What a request may ask of `transformers serve`: faults are one line with HTTP 400, and no answer outruns the context.

The server itself takes any body, asks for 1,024 tokens of any model, and fails inside torch. Its handlers and its
generation are wrapped here as they are imported; nothing of it is copied.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Handle = Callable[[dict[str, Any], str], Awaitable[Any]]
# Of each of its handlers, by its argument of `build_server`: what a request must have.
NEEDED = {"chat_handler": "messages", "completion_handler": "prompt", "response_handler": "input"}


class Refused(ValueError):
    """A request that cannot be answered, in one line."""


def fault(body: Mapping[str, Any], needed: str) -> str | None:
    """Why a body lacks what it must have; None where it does not. needed: a value of `NEEDED`."""
    given = body.get(needed)
    if not given:
        return f"{needed}: missing or empty"
    if needed == "prompt" or isinstance(given, str):
        right = isinstance(given, str) and needed != "messages"
        return None if right else f"{needed}: must be {'a list of messages' if needed == 'messages' else 'a text'}"
    if not isinstance(given, list):
        return f"{needed}: must be a list of messages"
    for place, message in enumerate(given):
        if needed == "input" and isinstance(message, dict) and "type" in message:
            continue  # what tools said, and the like, has neither
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return f"{needed}[{place}]: must be an object with role and content"
        if not isinstance(message.get("content"), str | list) and "tool_calls" not in message:
            return f"{needed}[{place}].content: must be a text"
    return None


def new_tokens(prompt: int, asked: int | None, context: int | None) -> int | None:
    """How many tokens an answer may have, where `asked` were asked for behind a prompt of so many: what is left of the
    context at most. `Refused` where there is no room for one, or less than one is asked for."""
    if asked is not None and asked < 1:
        raise Refused(f"max_tokens: must be at least 1, got {asked}")
    if context is None:
        return asked
    if prompt >= context:
        raise Refused(f"the prompt has {prompt:,} tokens, and the model's context {context:,}: no room for an answer")
    return min(asked or context, context - prompt)


def install() -> None:
    """Wrap the handlers and the generation of `transformers serve` in this process."""
    from transformers.cli.serving import server
    from transformers.cli.serving.utils import GenerateManager

    build = server.build_server

    def build_server(*given: Any, **named: Any) -> Any:
        arguments = inspect.signature(build).bind(*given, **named)
        for name, needed in NEEDED.items():
            handler = arguments.arguments[name]
            handler.handle_request = _told(handler.handle_request, needed)
        return build(*arguments.args, **arguments.kwargs)

    vars(server)["build_server"] = build_server
    for name in ("generate_streaming", "generate_non_streaming"):
        setattr(GenerateManager, name, _limited(getattr(GenerateManager, name)))


def _limited(generate: Callable[..., Any]) -> Callable[..., Any]:
    """A method that generates, with as many tokens as there is room for."""
    from rlhf_lib.models.loading import context_length

    def limited(self: Any, model: Any, processor: Any, inputs: Any, gen_config: Any, **more: Any) -> Any:
        prompt, asked = inputs["input_ids"].shape[-1], gen_config.max_new_tokens
        gen_config.max_new_tokens = new_tokens(prompt, asked, context_length(model))
        return generate(self, model, processor, inputs, gen_config, **more)

    return limited


def _told(handle: Handle, needed: str) -> Handle:
    """A handler that answers a fault with one line, in OpenAI's form."""
    from fastapi import HTTPException
    from jinja2 import TemplateError

    from rlhf_lib.common.hub import one_line

    async def handle_request(body: dict[str, Any], request_id: str) -> Any:
        if told := fault(body, needed):
            return _answer(400, told)
        try:
            return await handle(body, request_id)
        except HTTPException as error:
            return _answer(error.status_code, str(error.detail))
        except (Refused, TemplateError) as error:  # what a chat template says of messages that it does not take
            return _answer(400, one_line(error))
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # a field of another type, mostly
            return _answer(400, f"the request cannot be answered: {type(error).__name__}: {one_line(error)}")
        except Exception as error:
            return _answer(500, f"{type(error).__name__}: {one_line(error)}")

    return handle_request


def _answer(status: int, told: str) -> Any:
    from fastapi.responses import JSONResponse

    kind = "invalid_request_error" if status < 500 else "server_error"
    print(f"request refused, HTTP {status}: {told}", file=sys.stderr, flush=True)
    return JSONResponse({"error": {"message": told, "type": kind}}, status)
