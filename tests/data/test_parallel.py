import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import psutil
import pytest

from rlhf_lib.data.parallel import WAITING, ordered_map

# Processes import this file, so that their functions stand here


def squared(number):
    time.sleep(0.002 * (number % 3))  # so that results are not ready in their order
    return number * number


def whole(text):
    if not text.isdigit():
        raise SystemExit(f"not a number: {text}")
    return int(text)


def process(_):
    return os.getpid()


def killed(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def counted(limit, read):
    for number in range(limit):
        read.append(number)
        yield number


@pytest.mark.parametrize("items", [0, 1, 2, 3, 40])
@pytest.mark.parametrize("num_proc", [1, 2])
def test_results_have_the_order_of_the_items(num_proc, items):
    assert list(ordered_map(squared, range(items), num_proc)) == [number * number for number in range(items)]


@pytest.mark.parametrize("num_proc", [1, 2])
def test_no_more_is_read_than_what_is_being_worked_on(num_proc):
    read = []
    for done, result in enumerate(ordered_map(squared, counted(60, read), num_proc)):
        assert result == done * done
        assert len(read) - done <= WAITING * num_proc
    assert len(read) == 60


@pytest.mark.parametrize("num_proc", [1, 2])
def test_what_a_worker_raises_is_raised_after_the_results_before_it(num_proc):
    results = ordered_map(whole, ["1", "2", "3", "no", "5"], num_proc)
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(SystemExit, match="^not a number: no$"):
        next(results)
    with pytest.raises(AttributeError):
        list(ordered_map(whole, ["1", 2, "3"], num_proc))


def test_a_worker_that_the_system_kills_ends_in_one_line():
    with pytest.raises(SystemExit, match="lower num_proc$"):
        list(ordered_map(killed, range(9), 2))


def test_workers_end_with_a_parent_that_is_killed():
    code = (
        "import os, itertools\n"
        "from test_parallel import ordered_map, process\n"
        "if __name__ == '__main__':\n"
        "    pids = ordered_map(process, itertools.count(), 2)\n"
        "    print(*{next(pids) for _ in range(4)}, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=Path(__file__).parent, stdout=subprocess.PIPE, timeout=60
    )
    workers = [psutil.Process(pid) for pid in map(int, done.stdout.split()) if psutil.pid_exists(pid)]
    assert done.stdout and not psutil.wait_procs(workers, timeout=20)[1]


@pytest.mark.parametrize("num_proc", [1, 2])
def test_what_reading_the_items_raises_is_raised(num_proc):
    def items():
        yield from "123456789"
        raise SystemExit("cannot be read")

    with pytest.raises(SystemExit, match="cannot be read"):
        list(ordered_map(whole, items(), num_proc))


@pytest.mark.parametrize("num_proc", [1, 2])
def test_not_all_results_need_be_taken(num_proc):
    results = ordered_map(squared, count(), num_proc)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    results.close()


def test_work_is_done_elsewhere_where_there_is_enough_of_it():
    here = {os.getpid()}
    assert not here & set(ordered_map(process, range(20), 2))
    assert here == set(ordered_map(process, range(20), 1)) == set(ordered_map(process, [0], 2))
    assert list(ordered_map(str.upper, "ab")) == ["A", "B"]
