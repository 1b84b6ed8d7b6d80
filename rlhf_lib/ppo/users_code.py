"""Code of the user's at work: what it raises is told in one line, what it sets for the whole process is set back."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from rlhf_lib.common.hub import one_line
from rlhf_lib.common.yaml import ParamsError

# Files of Python, of installed packages and of this project, and what is in no file.
_NOT_THEIRS = (*sysconfig.get_paths().values(), str(Path(__file__).parents[1]), "<")


@contextmanager
def users_code(what: str) -> Iterator[None]:
    """A context that runs code of the user's: `what`, such as a function, in words.

    A `ParamsError` with the place in the code for whatever it raises, an end of the process among it. What PyTorch
    computes in, the number of its threads and the working directory are afterwards as before.
    """
    folder, dtype, threads = os.getcwd(), torch.get_default_dtype(), torch.get_num_threads()
    gradients, device = torch.is_grad_enabled(), torch.get_default_device()
    try:
        yield
    except ParamsError:
        raise
    except (Exception, SystemExit) as error:
        raise ParamsError(f"params.yaml: ppo.reward_funcs: {what} {_told(error, folder)}") from error
    finally:
        os.chdir(folder)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_default_device() != device:
            torch.set_default_device(device)


def _told(error: BaseException, folder: str) -> str:
    """What was raised, and the last place in the user's files that it came from."""
    files = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_NOT_THEIRS)]
    place = f" in {files[-1].filename.removeprefix(folder + os.sep)}, line {files[-1].lineno}" if files else ""
    if isinstance(error, SystemExit):
        return f"ends the process{place}; let it raise an error or return None for a row instead"
    said = one_line(error)
    return f"raises {type(error).__name__}{f': {said}' if said else ''}{place}; mend it"
