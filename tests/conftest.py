"""What every test needs: an environment without the network. The models are in support/tiny_models.py."""

import gc
import os
import sys

import pytest
from hypothesis import settings

# Before any import of huggingface_hub: no test reaches the network. One thread: the models are tiny.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}

# Nor is anything reported to trackers of whoever runs the tests.
for name in ("REPORT_TO", "DVC_EXP_NAME"):
    os.environ.pop(name, None)

# Where Python was told to keep no bytecode, each of the hundreds of processes here would compile the project anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Other programs may have the cores: no example of a property has to end in time.
settings.register_profile("without a deadline", deadline=None)
settings.load_profile("without a deadline")

# Python would look for garbage among the millions of objects that imports and the list of tests make, and which stay.
gc.disable()


# The folders whose files take longest, which come first: a worker that began one at the end would be waited for.
LONGEST = ("graph", "prune", "faults", "preset")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent.name not in LONGEST)


def pytest_runtest_setup() -> None:
    # Trainer shows no progress bar where warnings are off, as code of another test may have left them.
    if transformers := sys.modules.get("transformers"):
        transformers.logging.set_verbosity_warning()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()
