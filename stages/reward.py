"""The reward model: models/sft, or another base -> models/reward."""

from __future__ import annotations

from collections.abc import Sequence

from rlhf_lib.common import environment, few, left_out, paths, running
from rlhf_lib.common.schema import read
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.reward.params import JudgeParams, RewardParams
from rlhf_lib.training import report_to


def train(
    section: str, compute: ComputeParams, params: JudgeParams, files: Sequence[str], target_range: Sequence[float]
) -> None:
    """Train the model of section `section`, reward or judge, on the files of a `Splits`, and write its outs."""
    with environment.importing():
        from rlhf_lib.common.files import write_json
        from rlhf_lib.common.rows import read_jsonl, write_jsonl
        from rlhf_lib.models import hardware
        from rlhf_lib.models.templates import check_file
        from rlhf_lib.reward import base, metrics, scores
        from rlhf_lib.reward import trainer as reward
        from rlhf_lib.reward.data import Splits
        from rlhf_lib.scoring.reward_model import STATISTICS_FILE, RewardModel
        from rlhf_lib.training import trainer as training
        from rlhf_lib.training import weights
        from rlhf_lib.training.checkpoint import CheckpointDir

    hardware.use(compute)
    splits, checkpoints, path = Splits(*files), CheckpointDir(section), paths.model(section)
    bounds = (target_range[0], target_range[1]) if params.is_bounded else None
    trainer = reward.build(section, params, splits, bounds, checkpoints)
    check_file(paths.split("test"), trainer.processing_class)
    log = training.run(trainer, checkpoints, section)
    plain = weights.export(trainer, section, params, "SEQ_CLS", path, lambda: base.load(section, params, {}).model)
    if plain is None:
        return
    batch_size = RewardModel.ANSWERS * params.per_device_eval_batch_size
    model = RewardModel(plain.to(hardware.device()), trainer.processing_class, batch_size=batch_size, bounds=bounds)
    pairs, test = scores.measured_pairs(section, splits), read_jsonl(paths.split("test"))
    groups = read_jsonl(splits.groups_validation) if splits.groups_validation else None
    measured = scores.measure(model, params.kind, pairs, groups, test, target_range)
    write_json(f"{path}/{STATISTICS_FILE}", measured.statistics)
    write_jsonl(paths.scores(section), measured.scores)
    write_json(paths.summary(section), {section: measured.summary | reward.of_training(params.kind, trainer, log)})
    print(f"{section}: {metrics.told(measured.summary)}")
    few.tell(section, test=test)
    checkpoints.remove()


def main() -> None:
    compute, params = read("compute", ComputeParams), read("reward", RewardParams)
    target_range = read("prepare.target_range", list[float])
    report_to.check()
    left_out.unless_there("reward", paths.with_negatives("reward_train"))
    environment.prepare(offline=params.source.kind != "hub")
    others = map(paths.split, ("reward_validation", "groups_train", "groups_validation"))
    train("reward", compute, params, [paths.with_negatives("reward_train"), *others], target_range)


if __name__ == "__main__":
    running.run(main)
