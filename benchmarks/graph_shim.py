"""Runs a command and appends its seconds to $GRAPH_LOG: what stands for `python` while the graph is measured."""

import json
import os
import subprocess
import sys
import time


def main() -> int:
    log, arguments = os.environ["GRAPH_LOG"], sys.argv[1:]
    modules = f"{log}-{os.getpid()}.json"  # what the process had imported at its end, if it is a stage
    env = {**os.environ, "GRAPH_PID": str(os.getpid()), "GRAPH_MODULES": modules}
    start = time.perf_counter()
    process = subprocess.Popen(arguments, env=env)
    # The usage is that of the process and of all it waited for, which its workers are.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    took = {
        "arguments": arguments,
        "wall_seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "modules": modules,
    }
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps(took) + "\n")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
