"""Supervised fine-tuning: models/base -> models/sft."""

from rlhf_lib.common import environment, left_out, paths, running
from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.common.schema import read
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import report_to


def main() -> None:
    compute, params = read("compute", ComputeParams), read("sft", SFTParams)
    report_to.check()
    left_out.unless_there("sft", paths.split("sft_train"), copies={paths.SFT: paths.BASE})
    environment.prepare()
    with environment.importing():
        from rlhf_lib.models import hardware
        from rlhf_lib.sft import fine_tune
        from rlhf_lib.sft.trainer import FILES

    hardware.use(compute)
    fine_tune.train("sft", params, paths.BASE, {file: read_jsonl(file) for file in FILES})


if __name__ == "__main__":
    running.run(main)
