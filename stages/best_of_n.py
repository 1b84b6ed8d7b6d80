"""The best of n answers of the SFT model -> data/samples/best_of_n.jsonl and metrics/eval/best_of_n.json."""

from rlhf_lib.common import environment
from rlhf_lib.common.files import write_json
from rlhf_lib.common.rows import read_jsonl, write_jsonl
from rlhf_lib.common.schema import PARAMS_FILE, read
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.evaluation.params import BestOfNParams, EvaluateParams
from rlhf_lib.models.params import ComputeParams

SAMPLES, METRICS = "data/samples/best_of_n.jsonl", "metrics/eval/best_of_n.json"


def main() -> None:
    sizes, params = read("best_of_n", BestOfNParams).n, read("evaluate", EvaluateParams)
    if not sizes:
        write_jsonl(SAMPLES, [])
        write_json(METRICS, {})
        return
    temperature = params.temperatures[0]
    if temperature == 0:
        raise ParamsError(
            f"{PARAMS_FILE}: best_of_n.n: the answers are drawn at the first of evaluate.temperatures, which is 0, so "
            "that all of a prompt's are the same; put a temperature above 0 first, or set best_of_n.n to []"
        )
    compute = read("compute", ComputeParams)
    environment.prepare()
    with environment.importing():
        from rlhf_lib.evaluation import sampling as evaluation
        from rlhf_lib.evaluation.best_of_n import MODE, best_of_n_metrics
        from rlhf_lib.evaluation.samples import DATASET, in_mode, mode_name
        from rlhf_lib.models import hardware, processes
        from rlhf_lib.models import loading as models
        from rlhf_lib.scoring.reward_model import RewardModel

    hardware.use(compute)
    rows = evaluation.held_out_rows("data/splits/test.jsonl", params.max_prompts)
    sft, tokenizer = models.load_policy("models/sft"), models.load_tokenizer("models/sft")
    # random numbers of their own: SFT's samples, which the candidates are compared with, are not among them
    said = evaluation.draw(sft, tokenizer, rows, params, temperature, max(sizes), MODE, 1)
    candidates = [response.sample for response in said]
    evaluation.score(candidates, RewardModel.load("models/reward"), RewardModel.load("models/judge"))
    if not processes.is_main():
        return
    write_jsonl(SAMPLES, candidates)

    samples = read_jsonl("data/samples/sft.jsonl")
    baseline, dataset = in_mode(samples, mode_name(temperature)), in_mode(samples, DATASET)
    write_json(METRICS, best_of_n_metrics(candidates, baseline, dataset, sizes))


if __name__ == "__main__":
    main()
