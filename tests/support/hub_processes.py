"""Processes that read from a stand-in hub."""

import json
import os
import subprocess
import sys

from project import ROOT

COMMIT, OTHER = "a" * 40, "b" * 40

READ = """
import json, sys
from rlhf_lib.common import environment
environment.prepare(offline=False)
from rlhf_lib.data.load import hub
from rlhf_lib.data.load.reader import Hub
from rlhf_lib.data.load.params import SourceParams

def outcome(fields, place):
    try:
        return [[*record] for record in hub.read(SourceParams(**fields), Hub(**place) if place else None)]
    except SystemExit as error:
        return str(error)

outcomes = {name: outcome(*case) for name, case in json.loads(sys.argv[1]).items()}
print(json.dumps(outcomes, default=bytes.decode))
"""

FAIL = READ.partition("def outcome")[0] + 'list(hub.read(SourceParams("file", hub_id="o/d", revision="a" * 40), None))'


def start(hub, home, *command, cwd=ROOT, **env):
    """A Python process that knows no hub but `hub`; what goes to another host comes to it as CONNECT."""
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HOME": str(home),
        "HF_HOME": str(home),
        "HF_ENDPOINT": getattr(hub, "url", hub),
        "HTTPS_PROXY": getattr(hub, "url", hub),
        **env,
    }
    return subprocess.Popen(
        [sys.executable, *command], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read(hub, home, cases, **env):
    """The records of each case, as lists, or the message it ends with."""
    return outcomes(start(hub, home, "-c", READ, json.dumps(cases), **env))


def outcomes(process):
    out, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, "")
    return json.loads(out)


def message(process):
    """The one line that a process ends with."""
    out, error = process.communicate(timeout=120)
    assert (process.returncode, out, error.count("\n")) == (1, "", 1)
    return error
