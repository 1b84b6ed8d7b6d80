"""What every stage sets before it imports a heavy library."""

import os
import sys


def prepare(offline: bool = True) -> None:
    """Turn telemetry off, and the network too unless the params name a hub id.

    huggingface_hub reads these variables when it is imported, so this comes first in a stage's `main`.
    """
    if "huggingface_hub" in sys.modules:
        raise RuntimeError("environment.prepare() must run before huggingface_hub is imported")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # they would be those of reading small local files
