"""What a process, alone on its machine, does to come together with that of another: run by test_machines.py."""

import dataclasses
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch.distributed.distributed_c10d import _get_default_group

from rlhf_lib.models import hardware, machines, processes
from rlhf_lib.models.params import AUTO

machines.WAITS = timedelta(seconds=77)
hardware.use(dataclasses.replace(AUTO, device="cpu"))
machines.check_folder(Path(sys.argv[1]))
print(processes.shared_out([1, 2, 3], lambda mine: [f"{number} by {sys.argv[2]}" for number in mine]))
print(_get_default_group()._get_backend(torch.device("cpu")).options._timeout)
