"""Message lists of every form as {role, content} with our roles, or the reason why they cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rlhf_lib.common.rows import ROLES, Message, is_text

ROLE_MAP = {  # the roles of others -> ours; a source's `role_map` comes first
    "human": "user",
    "prompter": "user",
    "developer": "system",
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "bot", "ai"), "assistant"),
}
ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value", "parts", "text")  # `parts` is Gemini's
TEXT_PARTS = ("text", "input_text", "output_text")
CALLS = ("tool_calls", "function_call")
TOOL_ROLES = ("tool", "function", "function_call", "observation", "tool_call", "tool_response", "ipython")
MESSAGE_RULE = "messages must be a list of objects with role and content"


class Fault(NamedTuple):
    """Why a value is not used."""

    reason: str
    text: str


def read_messages(value: Any, role_map: Mapping[str, str] | None = None) -> list[Message] | Fault:
    """The messages of a list of {role, content}, {from, value} (ShareGPT) or {role, parts}; contents become texts."""
    if not isinstance(value, list) or not value:
        return Fault("malformed", MESSAGE_RULE)
    roles = {**ROLE_MAP, **(role_map or {})}
    messages: list[Message] = []
    for number, item in enumerate(value, start=1):
        message = _message(item, roles)
        if isinstance(message, Fault):
            return message._replace(text=f"message {number}: {message.text}" if message.text else MESSAGE_RULE)
        messages.append(message)
    return messages


def _message(item: Any, roles: Mapping[str, str]) -> Message | Fault:
    fields = item if isinstance(item, dict) else {}
    # in Parquet a message has the keys of all, those of other forms with a null
    role = next((fields[key] for key in ROLE_KEYS if fields.get(key) is not None), None)
    content = next((fields[key] for key in CONTENT_KEYS if fields.get(key) is not None), None)
    if not is_text(role):
        return Fault("malformed", "")
    if any(fields.get(key) for key in CALLS):
        return Fault("tool_calls", "calls a tool, which no stage here can do; leave such dialogues out")
    if role in TOOL_ROLES and role not in roles:
        return Fault(
            "tool_calls", f"is of a tool (role {role!r}), which no stage here can do; leave such dialogues out"
        )
    if roles.get(role, role) not in ROLES:
        return Fault("unknown_role", f"role {role!r}; set load.sources[...].role_map, such as {{{role}: user}}")
    text = _text(content)
    if isinstance(text, Fault):
        return text
    return Message(role=roles.get(role, role), content=text)


def _text(content: Any) -> str | Fault:
    """The text of a content: a text, or a list of parts that are texts, which become paragraphs."""
    if is_text(content):
        return content
    if not isinstance(content, list) or not content:
        return Fault("malformed", "")
    texts: list[str] = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind not in TEXT_PARTS or not is_text(text):
            return Fault("content_not_text", f"holds a part of type {kind!r}; only texts can be read")
        texts.append(text)
    return "\n\n".join(texts)
