"""Our side of the benchmark without a critic: `python -m benchmarks.grpo.ours`, started by
benchmarks/grpo/__main__.py."""

from benchmarks.grpo.cases import CASES
from benchmarks.ppo.ours import main

if __name__ == "__main__":
    main(CASES)
