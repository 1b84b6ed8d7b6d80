"""Reward functions that misbehave, as modules of the project, and what must be said of each."""

from __future__ import annotations

from typing import NamedTuple

LENGTHS = "[float(len(c[0]['content'])) for c in completions]"


class Reward(NamedTuple):
    """A module's text. told: a pattern of the line that stage ppo ends with; None where it does its work, and its
    policy is that of a function that only does as it should. ends: whether it would end the process that calls it."""

    text: str
    told: str | None
    ends: bool = False


def returns(value: str) -> str:
    """A module whose function gives something."""
    return does("pass", value)


def does(line: str, value: str = LENGTHS, above: str = "") -> str:
    """A module whose function does something, and gives what it should."""
    return f"{above}\n\ndef reward(completions, **columns):\n    {line}\n    return {value}\n"


NOT_A_LIST = r"reward function reward: gave .* not a list; it must return a list of one finite number or None"
NUMBER = r"reward function reward: gave .* for row 0; it must return"
RAISES = r"params.yaml: ppo.reward_funcs: the reward function reward raises {}.* in rewards/mine.py, line 4; mend it"
IMPORT = r"params.yaml: ppo.reward_funcs: rewards.mine:reward: the import of rewards.mine raises {}"
ENDS = r"ends the process in rewards/mine.py"
SOUND = returns(LENGTHS)

REWARDS: dict[str, Reward] = {
    "sound": Reward(SOUND, None),
    # ---- what it gives
    "None": Reward(returns("None"), NOT_A_LIST),
    "a number": Reward(returns("1.0"), NOT_A_LIST),
    "a text": Reward(returns("'1' * len(completions)"), NOT_A_LIST),
    "a tuple": Reward(returns(f"tuple({LENGTHS})"), NOT_A_LIST),
    "a dict": Reward(returns("dict(enumerate(completions))"), NOT_A_LIST),
    "a tensor": Reward(does("import torch", "torch.zeros(len(completions))"), NOT_A_LIST),
    "an array": Reward(does("import numpy", "numpy.zeros(len(completions))"), NOT_A_LIST),
    "a generator": Reward(returns("(1.0 for _ in completions)"), NOT_A_LIST),
    "a function": Reward(returns("lambda: 1"), NOT_A_LIST),
    "a class": Reward("class reward:\n    def __init__(self, **columns): ...\n", NOT_A_LIST),
    "too few": Reward(returns("[1.0]"), r"reward function reward: gave 1 rewards for \d+ rows"),
    "too many": Reward(returns("[1.0] * 10_000"), r"reward function reward: gave 10000 rewards for \d+ rows"),
    "empty": Reward(returns("[]"), r"reward function reward: gave 0 rewards for \d+ rows"),
    "NaN": Reward(returns("[float('nan')] * len(completions)"), NUMBER),
    "infinity": Reward(returns("[float('inf')] * len(completions)"), NUMBER),
    "texts": Reward(returns("['1.0'] * len(completions)"), NUMBER),
    "lists": Reward(returns("[[1.0]] * len(completions)"), NUMBER),
    "complex": Reward(returns("[1j] * len(completions)"), NUMBER),
    "tensors": Reward(does("import torch", "[torch.ones(3, 3)] * len(completions)"), NUMBER),
    "10^400": Reward(returns("[10**400] * len(completions)"), NUMBER),
    "a million digits": Reward(returns("[10**1_000_000] * len(completions)"), NUMBER),
    "what cannot be printed": Reward(
        "class Odd:\n    def __repr__(self): raise ValueError\n\n\n"
        "def reward(completions, **columns):\n    return [Odd()] * len(completions)\n",
        NUMBER,
    ),
    "control characters": Reward(returns(r"['\x1b[2J\a\n'] * len(completions)"), NUMBER),
    "whole numbers": Reward(returns("[len(c[0]['content']) for c in completions]"), None),
    "numbers of NumPy": Reward(does("import numpy", f"list(numpy.array({LENGTHS}))"), None),
    "fractions": Reward(
        does("from fractions import Fraction as F", "[F(len(c[0]['content'])) for c in completions]"), None
    ),
    # ---- what it raises
    "it raises": Reward(does("1 / 0"), RAISES.format("ZeroDivisionError: division by zero")),
    "it raises nothing said": Reward(does("raise ValueError"), RAISES.format("ValueError")),
    "it raises many lines": Reward(does(r"raise ValueError('a\nb\x1b[31m' * 1000)"), RAISES.format("ValueError: a b")),
    "it may not read": Reward(
        does("raise PermissionError(13, 'Permission denied', '/barred/key')"), RAISES.format("PermissionError")
    ),
    "it raises behind what it handled": Reward(
        "def reward(completions, **columns):\n    try:\n        raise PermissionError(13, 'no', 'models')\n"
        "    except OSError:\n        raise KeyError('x')\n",
        r"the reward function reward raises KeyError",
    ),
    "it stops an iteration": Reward(does("next(iter(()))"), RAISES.format("StopIteration")),
    "it asserts": Reward(does("assert not completions"), RAISES.format("AssertionError")),
    "it calls itself": Reward(does("reward(completions)"), r"the reward function reward raises RecursionError"),
    "its memory is not enough": Reward(does("bytearray(1 << 62)"), RAISES.format("MemoryError")),
    "an async one raises": Reward(
        "async def reward(completions, **columns):\n    1 / 0\n", r"reward raises ZeroDivisionError.* line 2; mend it"
    ),
    # ---- what it ends
    "sys.exit(0)": Reward(does("import sys; sys.exit(0)"), ENDS, ends=True),
    "quit": Reward(does("raise SystemExit"), ENDS, ends=True),
    "os._exit(0)": Reward(does("import os; os._exit(0)"), None, ends=True),
    "a KeyboardInterrupt": Reward(does("raise KeyboardInterrupt"), r"ppo: interrupted; dvc repro goes on", ends=True),
    "SIGKILL": Reward(does("import os; os.kill(os.getpid(), 9)"), None, ends=True),
    "SIGTERM": Reward(does("import os; os.kill(os.getpid(), 15)"), r"ppo: ended by SIGTERM", ends=True),
    # ---- what it changes
    "it empties its arguments": Reward(
        f"def reward(completions, prompts, **columns):\n    got = {LENGTHS}\n    completions.clear()\n"
        "    prompts.clear()\n    columns.clear()\n    return got\n",
        None,
    ),
    "it edits its rows": Reward(
        f"def reward(completions, prompts, **columns):\n    got = {LENGTHS}\n"
        "    for row in [*completions, *prompts]:\n        row[0]['content'] = 'x'\n        row.append(row[0])\n"
        "    return got\n",
        None,
    ),
    "it seeds": Reward(
        does("import random, numpy, torch; random.seed(0); numpy.random.seed(0); torch.manual_seed(0)"), None
    ),
    "it computes in float64": Reward(does("import torch; torch.set_default_dtype(torch.float64)"), None),
    "it computes on another device": Reward(does("import torch; torch.set_default_device('meta')"), None),
    "it switches gradients off": Reward(does("import torch; torch.set_grad_enabled(False)"), None),
    "it is inference": Reward(does("import torch; torch.inference_mode(True).__enter__()"), None),
    "it changes the folder": Reward(does("import os; os.chdir('/')"), None),
    "its module changes the folder": Reward(does("pass", above="import os\nos.chdir('/')\n"), None),
    "its module computes in float64": Reward(
        does("pass", above="import torch\ntorch.set_default_dtype(torch.float64)"), None
    ),
    "it changes the environment": Reward(does("import os; os.environ.clear()"), None),
    "it prints control characters": Reward(does(r"print('\x1b[2J\a')"), None),
    "it turns warnings into errors": Reward(does("import warnings; warnings.simplefilter('error')"), None),
    "it takes SIGINT": Reward(does("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"), None),
    "it collects no garbage": Reward(does("import gc; gc.disable()"), None),
    "it starts a thread": Reward(
        does("import threading, time; threading.Thread(target=time.sleep, args=(999,), daemon=True).start()"), None
    ),
    # ---- its module
    "no module": Reward("", r"has no reward|no reward in the module"),
    "no Python": Reward("def reward(:\n", r"rewards/mine.py is not Python|SyntaxError"),
    "it imports what is not there": Reward(
        "import frobnicate\n" + SOUND, r"imports frobnicate, which is not installed"
    ),
    "its import raises": Reward("1 / 0\n" + SOUND, IMPORT.format("ZeroDivisionError.* in rewards/mine.py, line 1")),
    "its import ends": Reward("import sys\nsys.exit(0)\n" + SOUND, ENDS, ends=True),
    "not a function": Reward("reward = 3\n", r"not a function but 3"),
    "null bytes": Reward("\0" + SOUND, r"not Python|null bytes"),
    "an argument that no row has": Reward(
        "def reward(completions, frob, **columns):\n    return [0.0]\n", r"asks for frob, but gets"
    ),
    "no further columns": Reward(
        "def reward(completions):\n    return [0.0]\n", r"takes no .*, with which it is called"
    ),
}
