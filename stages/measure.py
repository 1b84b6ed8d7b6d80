"""The numbers of a policy, or of best-of-n, from samples: data/samples -> metrics/eval/<name>.json."""

import sys

from rlhf_lib.common import few, left_out, paths, running
from rlhf_lib.common.files import write_json
from rlhf_lib.common.policies import POLICIES
from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.common.schema import argument, read
from rlhf_lib.evaluation.samples import DATASET, in_mode, mode_name
from rlhf_lib.measure.best_of_n import best_of_n_metrics
from rlhf_lib.measure.policy_metrics import policy_metrics


def main() -> None:
    name = argument(sys.argv, (*POLICIES, "best_of_n"))
    modes = [mode_name(temperature) for temperature in read("evaluate.temperatures", list[float])]
    if name != "best_of_n" or read("best_of_n.n", list[int]):
        left_out.unless_there(f"measure@{name}", paths.samples(name))
    samples = read_jsonl(paths.samples(name))
    baseline = samples if name == "sft" else read_jsonl(paths.samples("sft"))
    if name == "best_of_n":
        of_sft, dataset = in_mode(baseline, modes[0]), in_mode(baseline, DATASET)
        metrics = best_of_n_metrics(samples, of_sft, dataset, read("best_of_n.n", list[int]))
    else:
        metrics = policy_metrics(samples, baseline, modes)
    write_json(paths.evaluation(name), metrics)
    few.tell(f"measure@{name}", **{read("evaluate.split", str): samples})


if __name__ == "__main__":
    running.run(main)
