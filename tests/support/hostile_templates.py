"""Chat templates that attack, raise, or lose what they are given, and what must be said of each."""

from __future__ import annotations

from typing import NamedTuple

EXECUTED = "executed"  # a file that a template would make in the project's folder

SOUND = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Template(NamedTuple):
    """told: a pattern of the line that stage base ends with; None where it does its work all the same."""

    text: str | bytes
    told: str | None


def before(text: str) -> str:
    """A sound template behind something else."""
    return text + SOUND


def content(expression: str) -> str:
    """A sound template that writes messages otherwise."""
    return SOUND.replace("{{ m.content }}", f"{{{{ {expression} }}}}")


NESTED = "".join(f"{{% for i{n} in range(99999) %}}" for n in range(4)) + "{% endfor %}" * 4
DOUBLED = "{% set n = namespace(x='a') %}{% for i in range(COUNT) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
ESCAPES = {
    "globals of a function": "raise_exception.__globals__['__builtins__']['open']('executed', 'w')",
    "subclasses": "().__class__.__base__.__subclasses__()",
    "the class of a text": "''.__class__.__mro__[1].__subclasses__()",
    "format": "'{0.__class__.__init__.__globals__}'.format(raise_exception)",
    "cycler": "cycler.__init__.__globals__.os.system('touch executed')",
    "joiner": "joiner.__init__.__globals__.os.popen('touch executed').read()",
    "lipsum": "lipsum.__globals__['os'].system('touch executed')",
    "self": "self.__init__.__globals__.__builtins__.exec('x')",
    "generators": "(x for x in ()).gi_frame",
}
CHANGES = "changes the text of message 1"
LOSES = "leaves out the text of message 1"
ENDLESS = "does not end within 5 seconds; mend it"
MEMORY = "takes more than 1 GiB of memory; mend it|OverflowError|refuses them"
CHANCE = "writes something else each time"

TEMPLATES: dict[str, Template] = {
    "sound": Template(SOUND, None),
    # ---- loops and bombs
    "a loop of 10^12": Template(before("{% for i in range(10**12) %}{% endfor %}"), "Range too big"),
    "loops within loops": Template(before(NESTED), ENDLESS),
    "loops that write": Template(before(NESTED.replace("%}{% endfor", "%}a{% endfor", 1)), f"{ENDLESS}|{MEMORY}"),
    "a macro that calls itself": Template(before("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), "recursion"),
    "a power of powers": Template(before("{{ (9 ** (9 ** 9)) % 7 }}"), f"{ENDLESS}|{MEMORY}"),
    "10^10 characters": Template(before("{% set x = 'a' * 10**10 %}"), MEMORY),
    "10^9 characters, many times": Template(
        before("{% set x = ['a' * 5 * 10**8, 'b' * 5 * 10**8, 'c' * 10**9] %}"), MEMORY
    ),
    "a list of 10^10": Template(before("{% set x = [0] * 10**10 %}"), MEMORY),
    "a text that doubles": Template(before(DOUBLED.replace("COUNT", "60")), MEMORY),
    "a width of 10^10": Template(before("{{ '%10000000000d' % 1 }}"), MEMORY),
    "a text that is replaced": Template(before("{{ ('a' * 10**7) | replace('a', 'b' * 10**6) }}"), MEMORY),
    "50 MB of text": Template(before("{{ 'a ' * 25 * 10**6 }}"), "makes 50,0.* characters of messages of"),
    "a megabyte of template": Template(before("{# " + "x" * 10**6 + " #}"), None),
    "10,000 brackets": Template(before("{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}"), "refuses them"),
    "5,000 ifs": Template(before("{% if true %}" * 5_000 + "{% endif %}" * 5_000), "refuses them"),
    # ---- errors
    "it raises": Template(before("{{ raise_exception('no\\n\\x1b[31mway') }}"), "refuses them: no"),
    "it raises for a system": Template(
        before("{% if messages[0].role == 'system' %}{{ raise_exception('x') }}{% endif %}"), None
    ),
    "no Jinja": Template("{% for m in %}", "refuses them"),
    "it does not end": Template("{% for m in messages %}", "refuses them"),
    "an unknown filter": Template(before("{{ 'a' | frob }}"), "refuses them"),
    "an unknown name": Template(before("{{ frob.nicate.it }}"), "refuses them"),
    "a division by zero": Template(before("{{ 1 // 0 }}"), "refuses them"),
    "it includes a file": Template(before("{% include 'params.yaml' %}"), "refuses them"),
    "it imports a file": Template(before("{% import 'os' as os %}"), "refuses them"),
    # ---- out of the sandbox
    **{
        f"out: {name}": Template(before(f"{{{{ {code} }}}}"), f"refuses them|{CHANCE}")
        for name, code in ESCAPES.items()
    },
    "out: format_map": Template(before("{{ '{a.__class__}'.format_map({'a': 1}) }}"), None),  # which gives nothing away
    "out: attr": Template(before("{{ '' | attr('__class__') | attr('__mro__') }}"), None),
    "out: it appends to the messages": Template(before("{{ messages.append(1) }}"), "refuses them"),
    "out: it edits a message": Template(before("{{ messages[0].update(content='x') }}"), "refuses them"),
    # ---- what is lost
    "nothing": Template("", "refuses them|leaves out"),
    "a constant": Template("hello", LOSES),
    "a constant and its end": Template("hello{{ eos_token }}", LOSES),
    "roles without texts": Template("{% for m in messages %}<|{{ m.role }}|>{{ eos_token }}{% endfor %}", LOSES),
    "the last message alone": Template("{{ messages[-1].content }}{{ eos_token }}", LOSES),
    "the answer is missing": Template(
        content("m.content if m.role == 'user' else ''"), "leaves out the text of message 2"
    ),
    "texts without roles": Template("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", None),
    "no end": Template("{% for m in messages %}{{ m.content }}\\n{% endfor %}", "never ends an answer"),
    "capitals": Template(content("m.content | upper"), CHANGES),
    "lower case": Template(content("m.content | lower"), CHANGES),
    "trimmed": Template(content("m.content | trim"), None),
    "cut": Template(content("m.content[:500]"), CHANGES),
    "truncated": Template(content("m.content | truncate(100)"), CHANGES),
    "escaped": Template(content("m.content | e"), CHANGES),
    "as JSON": Template(content("m.content | tojson"), CHANGES),
    "other words": Template(content("m.content | replace('é', 'e')"), CHANGES),
    "other order": Template(content("m.content | reverse"), "text of message 1"),
    # ---- another prompt each time
    "the day": Template(before("{{ strftime_now('%d %b %Y') }}"), None),
    "the nanosecond": Template(before("{{ strftime_now('%H:%M:%S.%f') }}"), None),
    "drawn": Template(before("{{ ['a', 'b'] | random }}"), CHANCE),
    "lorem ipsum": Template(before("{{ lipsum() }}"), CHANCE),
    # ---- what is no text
    "UTF-16": Template(SOUND.encode("utf-16"), "tokenizer cannot be read"),
    "null bytes": Template(before("\0\0"), None),
}
