"""The control of rft: the same, on any of a prompt's answers instead of the best -> models/rft_random."""

from rlhf_lib.common import left_out, paths, running
from rlhf_lib.common.schema import read
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.rft.params import RFTParams
from rlhf_lib.training import report_to
from stages import rft


def main() -> None:
    compute, params = read("compute", ComputeParams), read("rft", RFTParams)
    report_to.check()
    left_out.unless_wanted("rft_random", "rft_random", read("methods.rft_random", bool))
    left_out.unless_there("rft_random", paths.split("prompts_train"), paths.CANDIDATES)
    rft.fine_tune("rft_random", compute, params, seed=params.seed)


if __name__ == "__main__":
    running.run(main)
