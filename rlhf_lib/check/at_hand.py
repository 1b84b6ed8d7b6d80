"""Models and tokenizers that are at hand: in a directory, or in the hub's cache. The network is never asked."""

from __future__ import annotations

import os
from pathlib import Path


def folder(name: str, revision: str | None = None, file: str = "config.json") -> Path | None:
    """The folder of a model that holds `file`: the directory `name`, or a hub model's snapshot; None if neither."""
    directory = os.path.expanduser(name)
    if os.path.isdir(directory):
        return Path(directory)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, file, revision=revision)
    except (HFValidationError, OSError, ValueError):
        return None
    return Path(found).parent if isinstance(found, str) else None
