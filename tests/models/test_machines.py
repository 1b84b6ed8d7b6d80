"""A machine that is lost, one that is still starting, and one that has ended, as another sees them."""

import os
import subprocess
import sys
from pathlib import Path
from socket import socket

import pytest
from project import ROOT

FIRST_OF_TWO = """
import os, time
from torch.distributed import TCPStore
from rlhf_lib.models import machines

machines.BEAT, machines.PATIENCE = 0.05, 4
store = TCPStore("127.0.0.1", 0, is_master=True)
launched = {"GROUP_WORLD_SIZE": 2, "GROUP_RANK": 0, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1"}
os.environ |= {name: str(value) for name, value in {**launched, "MASTER_PORT": store.port}.items()}
machines.watch()
store.add("machine/1", SIGNS)
time.sleep(3)
print("still here")
"""
LOST = "machine 1 has given no sign of life for 0 s, and this ends with it; dvc repro goes on where it stopped"


@pytest.mark.parametrize(
    ("signs", "code", "said", "told"),
    [("0", 0, "still here", ""), ("1", 1, "", LOST), ("machines._DONE", 0, "still here", "")],
    ids=["starting", "lost", "ended"],
)
def test_a_machine_is_lost_where_its_signs_of_life_cease(signs, code, said, told):
    done = subprocess.run(
        [sys.executable, "-c", FIRST_OF_TWO.replace("SIGNS", signs)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout.strip()) == (code, said)
    assert told in done.stderr and ("sign of life" in done.stderr) == bool(told)


@pytest.mark.slow
def test_two_machines_without_a_trainer_come_together(tmp_path):
    """As in stage candidates: what they first do together is to look at the folder."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alike = {"WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "GROUP_WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
    both = [
        subprocess.Popen(
            [sys.executable, Path(__file__).parents[1] / "support/on_two_machines.py", tmp_path, str(rank)],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"},
                **{name: str(value) for name, value in {**alike, "RANK": rank, "GROUP_RANK": rank}.items()},
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=120)[0].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1] == ["['1 by 0', '2 by 1', '3 by 0']", "0:01:17"]
