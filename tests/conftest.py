"""What every test needs: an environment without the network. The models are in support/tiny_models.py."""

import gc
import os

# Before any import of huggingface_hub: no test reaches the network. One thread: the models are tiny.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}

# Python would look for garbage among the millions of objects that imports and the list of tests make, and which stay.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
