"""The reward model: models/sft, or another base -> models/reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_lib.common import environment, few, left_out, paths
from rlhf_lib.common.schema import read
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.reward.params import JudgeParams, RewardParams

if TYPE_CHECKING:
    from rlhf_lib.reward.data import Splits


def train(section: str, params: JudgeParams, splits: Splits, target_range: Sequence[float] = (0.0, 1.0)) -> None:
    """Train the model of params section `section`, reward or judge, and write what the stage of that name writes."""
    with environment.importing():
        from rlhf_lib.common.files import write_json
        from rlhf_lib.common.rows import read_jsonl, write_jsonl
        from rlhf_lib.reward import base, scores
        from rlhf_lib.reward import trainer as reward
        from rlhf_lib.scoring.reward_model import STATISTICS_FILE, RewardModel
        from rlhf_lib.training import trainer as training
        from rlhf_lib.training import weights
        from rlhf_lib.training.checkpoint import CheckpointDir

    checkpoints, path = CheckpointDir(section), paths.model(section)
    bounds = (target_range[0], target_range[1]) if params.is_bounded else None
    trainer = reward.build(section, params, splits, bounds, checkpoints)
    log = reward.run(trainer, checkpoints)
    plain = weights.export(trainer, section, params, "SEQ_CLS", path, lambda: base.load(section, params, {}).model)
    if plain is None:
        return
    model = RewardModel(plain, trainer.processing_class, bounds=bounds)
    pairs, test = read_jsonl(splits.validation), read_jsonl(paths.split("test"))
    groups = read_jsonl(splits.groups_validation) if splits.groups_validation else None
    measured = scores.measure(model, params.kind, pairs, groups, test, target_range)
    write_json(Path(path) / STATISTICS_FILE, measured.statistics)
    write_jsonl(paths.scores(section), measured.scores)
    training.write_curves(section, log)
    write_json(paths.summary(section), {section: measured.summary | reward.of_training(params.kind, trainer, log)})
    print(f"{section}: accuracy {measured.summary['accuracy'] or 0:.3f} on {measured.summary['pairs']:,} test pairs")
    few.tell(section, test=test)
    checkpoints.remove()


def main() -> None:
    compute, params = read("compute", ComputeParams), read("reward", RewardParams)
    target_range = read("prepare.target_range", list[float])
    left_out.unless_there("reward", paths.with_negatives("reward_train"))
    environment.prepare(offline=params.source.kind != "hub")
    with environment.importing():
        from rlhf_lib.models import hardware
        from rlhf_lib.reward.data import Splits

    others = (paths.split(name) for name in ("reward_validation", "groups_train", "groups_validation"))
    hardware.use(compute)
    train("reward", params, Splits(paths.with_negatives("reward_train"), *others), target_range)


if __name__ == "__main__":
    main()
