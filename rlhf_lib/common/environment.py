"""What every stage sets before it imports a heavy library."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from warnings import filterwarnings


@contextmanager
def importing() -> Iterator[None]:
    """A block of imports, in which Python looks for no garbage, nor ever again among what they made.

    PyTorch and transformers make millions of objects that stay: searching those takes a fifth of a stage's start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def prepare(offline: bool = True) -> None:
    """Turn telemetry off, and the network too unless the params name a hub id; let waiting threads sleep soon.

    The libraries read these variables when they are imported, so this comes first in a stage's `main`.
    """
    if "huggingface_hub" in sys.modules:
        raise RuntimeError("environment.prepare() must run before huggingface_hub is imported")
    # peft reads a name of transformers that will go
    filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # PyTorch's threads (GNU OpenMP) wait for one another by spinning; where another program takes one of the cores,
    # they would spin most of the time.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # oneDNN keeps the kernels that it compiles for every shape, up to 1,024 of them; a layer needs a dozen.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    # One process trains on one device; more visible GPUs, such as a batch system names, would make Trainer split every
    # batch over threads.
    if "WORLD_SIZE" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    # No two batches have as many tokens. Of memory in blocks that cannot grow, a GPU keeps some for each size.
    if not any(name.startswith("PYTORCH_") and name.endswith("ALLOC_CONF") for name in os.environ):
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # they would be those of reading small local files


def project() -> Path:
    """The project's folder, also in the temporary workspaces of `dvc exp run --temp` and `--queue`."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()
