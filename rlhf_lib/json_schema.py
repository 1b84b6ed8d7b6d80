"""The JSON Schema of params.yaml, for editors: `python -m rlhf_lib.json_schema` writes params.schema.json.

Types, choices and bounds come from the sections' dataclasses. Descriptions come from the comments in params.yaml: a key
has the comment above it or, without one, that of the first key of its name. What must hold between several keys
(`__post_init__`) is left to `python -m rlhf_lib.check`.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from rlhf_lib.check.sections import SECTIONS
from rlhf_lib.common.policies import POLICIES
from rlhf_lib.common.schema import PARAMS_FILE, Above, AtLeast, AtMost, Below, NotEmpty, SomeText
from rlhf_lib.common.yaml import ParamsError

SCHEMA_FILE = Path("params.schema.json")
TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}
BOUNDS = {
    AtLeast: "minimum",
    Above: "exclusiveMinimum",
    AtMost: "maximum",
    Below: "exclusiveMaximum",
    NotEmpty: "minItems",
    SomeText: "minLength",
}
LAUNCH = r"^\s*(python|accelerate|torchrun|bash)(\s|$)"

Schema = dict[str, Any]
Comments = Mapping[tuple[str, str], str]  # by section and key; the section of policy and launch is ""


def comments(text: str) -> Comments:
    """The comment above each key of params.yaml, or behind its value; empty where there is none."""
    found: dict[tuple[str, str], str] = {}
    section, above = "", list[str]()
    for line in text.splitlines():
        if comment := re.fullmatch(r" *# ?(.*)", line):
            above.append(comment[1])
            continue
        if key := re.match(r"(  )?(\w+):(?:.*? # (.*))?", line):
            section = section if key[1] else key[2]
            found[section if key[1] else "", key[2]] = " ".join([*above, *filter(None, [key[3]])])
        above = []
    return found


def description(section: str, key: str, found: Comments) -> str:
    """The comment of a key or, without one, of the first key of its name; a `ParamsError` where that has none."""
    first = next((text for (_, name), text in found.items() if name == key), "")
    if text := found.get((section, key)) or first:
        return text
    raise ParamsError(f"{PARAMS_FILE}: {section}.{key}: no comment here, nor where {key} first appears; write one")


def of_type(hint: Any) -> Schema:
    """The schema of the values that `rlhf_lib.common.schema` takes for a type hint."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return of_type(arguments[0]) | {BOUNDS[type(bound)]: _limit(bound) for bound in arguments[1:]}
    if origin in (Union, types.UnionType):
        options = [of_type(argument) for argument in arguments if argument is not type(None)]
        schema = options[0] if len(options) == 1 else {"anyOf": options}
        return _or_null(schema) if type(None) in arguments else schema
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": of_type(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": of_type(arguments[1])}
    return of_fields(hint) if dataclasses.is_dataclass(hint) else {"type": TYPES[hint]}


def of_fields(section: Any) -> Schema:
    """The schema of a dataclass: its fields and no others, those without a default required."""
    hints = get_type_hints(section, include_extras=True)
    parameters = inspect.signature(section).parameters.values()
    return _closed(
        {name: of_type(hint) for name, hint in hints.items()},
        [parameter.name for parameter in parameters if parameter.default is parameter.empty],
    )


def of_params(text: str) -> Schema:
    """The schema of the whole of params.yaml, whose text gives the descriptions."""
    found = comments(text)
    properties: Schema = {
        "policy": {"type": "string", "enum": list(POLICIES), "description": description("", "policy", found)},
        "launch": {"type": "string", "pattern": LAUNCH, "description": description("", "launch", found)},
    }
    for name, section in SECTIONS.items():
        properties[name] = of_fields(section)
        for key, schema in properties[name]["properties"].items():
            schema["description"] = description(name, key, found)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": str(PARAMS_FILE)}
    return head | _closed(properties, list(properties))


def main() -> None:
    """The command line: write the schema, or say whether the file is up to date."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.json_schema", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail unless the file is up to date")
    arguments = parser.parse_args()
    made = json.dumps(of_params(PARAMS_FILE.read_text(encoding="utf-8")), indent=2) + "\n"
    if not arguments.check:
        SCHEMA_FILE.write_text(made, encoding="utf-8")
    elif not SCHEMA_FILE.is_file() or SCHEMA_FILE.read_text(encoding="utf-8") != made:
        raise SystemExit(f"{SCHEMA_FILE}: not up to date; run python -m rlhf_lib.json_schema")


def _closed(properties: Schema, required: list[str]) -> Schema:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def _limit(bound: Any) -> float:
    return next(iter(vars(bound).values()), 1)  # NotEmpty and SomeText have no field: one item, one character


def _or_null(schema: Schema) -> Schema:
    if "anyOf" in schema:
        return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    choices = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [schema["type"], "null"]} | choices


if __name__ == "__main__":
    main()
