"""What an export can be told: names that need no heavy library."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from rlhf_lib.common.yaml import ParamsError

# as compute.precision calls them: as PyTorch does, and as llama.cpp does
DTYPES = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}
GGUF_TYPES = {"bf16": "bf16", "fp32": "f32", "fp16": "f16"}

UNKNOWN = "unknown"
# the identifiers that the hub documents: huggingface.co/docs/hub/repositories-licenses
_DOCUMENTED = """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
    intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit
    mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown
    unlicense wtfpl zlib
"""
LICENSES = frozenset(_DOCUMENTED.split())


@dataclass(frozen=True)
class License:
    """As the hub wants it: its identifier, and name and link of one that has none (`other`)."""

    id: str = UNKNOWN
    name: str | None = None
    link: str | None = None


def license_of(given: str, name: str | None, link: str | None) -> License:
    """The licence for a card; nothing given is `unknown`. A `ParamsError` where the hub has no such identifier."""
    known = given.strip().lower() or UNKNOWN
    if known not in LICENSES:
        near = difflib.get_close_matches(known, LICENSES, 3, 0.5)
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise ParamsError(
            f"license {given}: no identifier of the hub; {meant}for one that has none, python -m rlhf_lib.export write "
            "MODEL --license other --license-name NAME --license-link URL"
        )
    if known == "other" and not name:
        raise ParamsError("license other: it needs --license-name, and --license-link to its text")
    return License(known, name, link)
