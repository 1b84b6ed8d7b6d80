"""Stages reward and judge: the kinds of reward model, on decoders and encoders."""

import json
import math
from pathlib import Path

import pytest
import torch
from encoders import PROMPTS, save_encoder
from project import ROOT
from reward_trainers import SCORES, SPLITS, TARGETS, build, group, pair, params, response
from torch import tensor
from trl_trainers import CHOSEN, REJECTED, CountSteps, KillAfterSave, Killed, read_tsv

from benchmarks import reward_kinds
from rlhf_lib.common.rows import read_jsonl, write_jsonl
from rlhf_lib.common.schema import check
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.reward import losses as reward_losses
from rlhf_lib.reward import trainer as reward
from rlhf_lib.reward.params import JudgeParams, RewardParams
from rlhf_lib.scoring.reward_model import STATISTICS_FILE, RewardModel, raw_scores
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir

LONG = "sky " * 100


def batch_of(trainer, indices=range(9)):
    return trainer.data_collator([trainer.train_dataset[i] for i in indices])


def loss_of(trainer, indices=range(9)):
    return trainer.compute_loss(trainer.model.eval(), batch_of(trainer, indices)).item()


def scorer_of(trainer, bounds=None):
    return RewardModel(trainer.model, trainer.processing_class, bounds=bounds)


@pytest.fixture(scope="module", params=["bert", "distilbert", "roberta"])
def encoder(request, tmp_path_factory):
    """An encoder's directory; of the three, only BERT embeds segments."""
    return save_encoder(tmp_path_factory.mktemp(request.param), request.param)


# ---- losses


@pytest.mark.parametrize("centring", [None, 0.1])
def test_ranking_two_answers_is_trls_bradley_terry(tiny, checkpoints, splits, centring):
    two = [[response(CHOSEN[i], 1.0, 1.0), response(REJECTED[i], 0.0, 0.0)] for i in range(9)]
    write_jsonl("groups.jsonl", [{**group(i), "responses": responses} for i, responses in enumerate(two)])
    changes = {"center_rewards_coefficient": centring}
    trl, ours = (build(tiny.policy, checkpoints, loss_type=kind, **changes) for kind in ("bradley_terry", "ranking"))
    assert type(trl).__name__ == "UnpaddedRewardTrainer" and type(ours).__name__ == "GroupsTrainer"
    assert loss_of(ours) == pytest.approx(loss_of(trl), abs=1e-6)


@pytest.mark.parametrize("base", ["decoder", "encoder"])
def test_a_pair_must_differ_by_as_much_as_its_scores(tiny, tmp_path, checkpoints, splits, base):
    pairs = [pair(0, score_chosen=8.0), pair(1, score_rejected=None), pair(2, score_chosen=0.1)]
    write_jsonl("pairs.jsonl", pairs)
    path = tiny.policy if base == "decoder" else save_encoder(tmp_path / "bert", "bert")
    trainer = build(path, checkpoints, loss_type="margin", max_length=24)
    scores = scorer_of(trainer).scores
    chosen, rejected = (tensor(scores(PROMPTS[:3], answers[:3])) for answers in (CHOSEN, REJECTED))
    # nothing is known of by how much the second one is better
    margins = tensor([1.5, 0.0, 0.1 - 5.5])
    expected = -torch.nn.functional.logsigmoid(chosen - rejected - margins).mean()
    assert loss_of(trainer, range(3)) == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "bounds"), [("ranking", None), ("mse", None), ("mae", (1.0, 10.0)), ("mse", (-1.0, 1.0))]
)
def test_the_loss_is_that_of_the_scores_by_which_ppo_learns(tiny, checkpoints, splits, kind, bounds):
    trainer = build(tiny.policy, checkpoints, bounds, loss_type=kind)
    contents = [r["content"] for i in range(9) for r in group(i)["responses"]]
    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    rewards = tensor(scorer_of(trainer, bounds).scores(prompts, contents))
    batch = batch_of(trainer)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    assert raw_scores(trainer.model, inputs, bounds).tolist() == pytest.approx(rewards.tolist(), abs=1e-5)
    groups = torch.arange(9).repeat_interleave(4)
    if kind == "ranking":
        expected = reward_losses.ranking_loss(rewards, tensor(SCORES * 9), groups)
    else:
        expected = reward_losses.regression_loss(rewards, tensor(TARGETS * 9), groups, kind)
        assert bounds is None or (rewards.min() > bounds[0] and rewards.max() < bounds[1])
    assert loss_of(trainer) == pytest.approx(expected.item(), abs=1e-5)


def test_a_bounded_reward_is_a_sigmoid_of_the_output(tiny):
    plain = RewardModel.load(tiny.reward)
    bounded = RewardModel(plain.model, plain.tokenizer, bounds=(1.0, 10.0))
    expected = [1 + 9 / (1 + math.exp(-x)) for x in plain.scores(PROMPTS, CHOSEN)]
    assert bounded.scores(PROMPTS, CHOSEN) == pytest.approx(expected, abs=1e-4)


def test_validation_is_over_all_rows(tiny, checkpoints, splits):
    trainer = build(tiny.policy, checkpoints, loss_type="ranking", per_device_train_batch_size=4)
    whole = trainer.evaluate()
    right, pairs = 0.0, 0
    for i in range(9):
        scores = scorer_of(trainer).scores([PROMPTS[i]] * 4, [r["content"] for r in group(i)["responses"]])
        counted = reward_losses.count_right(tensor(scores), tensor(SCORES), torch.zeros(4))
        right, pairs = right + counted[0], pairs + counted[1]
    assert pairs == 45 and whole["eval_accuracy"] == pytest.approx(right / pairs)
    assert whole["eval_loss"] == pytest.approx(loss_of(trainer), abs=1e-5)


@pytest.mark.parametrize("kind", ["ranking", "mse"])
def test_the_step_does_not_depend_on_the_micro_batch(tiny, checkpoints, splits, kind):
    three = [{**group(i), "responses": group(i)["responses"][1:]} for i in range(2)]
    write_jsonl("groups.jsonl", [*three, group(2), group(3)])
    steps = []
    for size, accumulation in ((4, 1), (1, 4)):
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        trainer = build(tiny.policy, checkpoints, loss_type=kind, max_steps=1, eval_steps=9, save_steps=9, **sizes)
        log = training.run(trainer, checkpoints)
        steps.append([training.last(log, key) for key in ("loss", "grad_norm", "accuracy")])
    assert steps[0] == pytest.approx(steps[1], rel=1e-4)


# ---- rows


def test_answers_that_are_too_long_are_dropped_and_prompts_without_a_pair(tiny, checkpoints, splits):
    kept, left = group(0, ["cat", "dog", LONG, "sky"]), group(1, ["cat", LONG, LONG, LONG])
    even = {**group(2), "responses": [response("cat", 5.0, 0.5), response("dog", 5.0, 0.5)]}
    write_jsonl("groups.jsonl", [kept, left, even])
    ranking, mse = (build(tiny.policy, checkpoints, loss_type=kind).train_dataset for kind in ("ranking", "mse"))
    assert ranking["values"] == [[9.0, 6.0, 2.0]]
    assert mse["values"] == [[0.9, 0.6, 0.2], [0.9], [0.5, 0.5]]


@pytest.mark.parametrize("kind", ["bradley_terry", "mse"])
def test_an_encoder_learns_from_texts_as_it_scores_them(encoder, checkpoints, splits, kind):
    trainer = build(encoder, checkpoints, loss_type=kind, max_length=24)
    scorer, batch = scorer_of(trainer), batch_of(trainer)
    segments = "token_type_ids" in batch
    assert segments == (trainer.model.config.model_type == "bert")
    assert not segments or batch["token_type_ids"].any(dim=1).all()
    of_pairs = [(CHOSEN[i], REJECTED[i]) for i in range(9)]
    of_groups = [[r["content"] for r in group(i)["responses"]] for i in range(9)]
    answers = [answer for of_prompt in (of_groups if kind == "mse" else of_pairs) for answer in of_prompt]
    inputs = {key: value for key, value in batch.items() if key not in ("values", "groups", "margins")}
    got = raw_scores(trainer.model.eval(), inputs, None).tolist()
    prompts = [p for p in PROMPTS for _ in range(len(answers) // 9)]
    assert got == pytest.approx(scorer.scores(prompts, answers), abs=1e-5)
    if kind != "mse":
        margins = tensor(got[::2]) - tensor(got[1::2])
        assert loss_of(trainer) == pytest.approx(-torch.nn.functional.logsigmoid(margins).mean().item(), abs=1e-5)


def test_nothing_to_learn_from_is_told(tiny, checkpoints, splits):
    write_jsonl("groups.jsonl", [group(0, [LONG] * 4)])
    with pytest.raises(ParamsError, match=r"reward\.max_length: no row to learn from"):
        build(tiny.policy, checkpoints, loss_type="mse")
    for kind in ("mse", "margin"):
        for file in ("groups.jsonl", "pairs.jsonl"):
            write_jsonl(file, [])
        with pytest.raises(ParamsError, match=r"\.jsonl: no rows; "):
            build(tiny.policy, checkpoints, loss_type=kind)


# ---- runs


RUNS = {
    "ranking": {"loss_type": "ranking", "train_sampling_strategy": "group_by_length"},
    "bounded": {"loss_type": "mse", "bounded": True},
    "encoder": {"loss_type": "bradley_terry", "max_length": 24},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_goes_on_to_the_same_weights_and_curves(tiny, tmp_path, checkpoints, splits, name):
    base = save_encoder(tmp_path / "bert", "bert") if name == "encoder" else tiny.policy
    options = {"bounds": (0.0, 1.0) if name == "bounded" else None, "max_steps": 4, "eval_steps": 2, **RUNS[name]}
    whole = build(base, checkpoints, **options)
    log = training.run(whole, checkpoints)
    checkpoints.remove()

    checkpoints = CheckpointDir("ppo")
    killed = build(base, checkpoints, **options)
    killed.add_callback(KillAfterSave())
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    resumed = build(base, checkpoints, **options)
    counter = CountSteps()
    resumed.add_callback(counter)
    resumed_log = training.run(resumed, checkpoints)
    assert counter.steps == 2

    for run, rows in (("whole", log), ("resumed", resumed_log)):
        training.write_curves(run, rows)
    columns = {"train.tsv": {"step", "loss", "accuracy"}, "eval.tsv": {"step", "eval_loss", "eval_accuracy"}}
    for curve in columns:
        assert Path(f"metrics/whole/{curve}").read_bytes() == Path(f"metrics/resumed/{curve}").read_bytes()
        assert columns[curve] <= set(read_tsv(f"metrics/whole/{curve}")[0])
    expected, got = whole.model.state_dict(), resumed.model.state_dict()
    assert expected.keys() == got.keys() and all(expected[key].equal(got[key]) for key in expected)


@pytest.mark.parametrize("kind", ["ranking", "mse", "mae"])
def test_every_kind_lowers_its_loss(tiny, checkpoints, splits, kind):
    trainer = build(tiny.policy, checkpoints, loss_type=kind, max_steps=12, eval_steps=12, save_steps=12)
    before = trainer.evaluate()["eval_loss"]
    assert training.last(training.run(trainer, checkpoints), "eval_loss") < before - 0.05


@pytest.fixture
def project(checkpoints, splits):
    """A folder where stages can run, with the files of both on the same rows."""
    Path("dvc.yaml").write_text("stages: {reward: {cmd: x, deps: []}, judge: {cmd: x, deps: []}}\n")
    write_jsonl("data/splits/test.jsonl", [group(i) for i in range(3)])


def files(folder):
    return {file.relative_to(folder): file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()}


def test_the_judge_is_a_reward_model_of_other_rows(tiny, project):
    """With the same rows and params, it is the same model."""
    of_reward = params(tiny.policy)
    shared = {key: value for key, value in vars(of_reward).items() if key not in ("loss_type", "bounded")}
    reward.run("reward", of_reward, SPLITS, [0.0, 1.0])
    reward.run("judge", JudgeParams(**shared), reward.Splits("pairs.jsonl", "pairs.jsonl"))
    assert files("models/reward") == files("models/judge") and Path("models/judge/model.safetensors").is_file()
    assert files("data/scores")[Path("reward.jsonl")] == files("data/scores")[Path("judge.jsonl")]
    of_stages = [json.loads(Path(f"metrics/{stage}/summary.json").read_text())[stage] for stage in ("reward", "judge")]
    assert of_stages[0].pop("fitted_mse") > 0
    assert of_stages[0] == of_stages[1]
    assert Path("metrics/reward/eval.tsv").read_bytes() == Path("metrics/judge/eval.tsv").read_bytes()
    assert not list(Path("checkpoints/reward").glob("*/checkpoint-*"))


def test_a_stage_writes_the_scores_of_the_test_rows_and_their_numbers(tiny, project):
    reward.run("reward", params(tiny.policy, loss_type="mse", bounded=True), SPLITS, [1.0, 10.0])
    scores = read_jsonl("data/scores/reward.jsonl")
    assert [(row["id"], row["response"]) for row in scores] == [(str(i), k) for i in range(3) for k in range(4)]
    assert set(scores[0]) == {"id", "source", "response", "score", "target", "reward", "gold"}
    # normalised or not, the model in the directory knows its bounds
    for normalize in (True, False):
        loaded = RewardModel.load("models/reward", normalize=normalize)
        contents = [r["content"] for i in range(3) for r in group(i)["responses"]]
        got = loaded.scores([PROMPTS[i] for i in range(3) for _ in range(4)], contents)
        assert got == pytest.approx([row["reward"] for row in scores], abs=1e-5)
        assert all(1 < value < 10 for value in got)
    statistics = json.loads(Path(f"models/reward/{STATISTICS_FILE}").read_text())
    assert statistics["bounds"] == [1.0, 10.0]
    summary = json.loads(Path("metrics/reward/summary.json").read_text())["reward"]
    errors = [row["reward"] - row["target"] for row in scores]
    assert summary["mse"] == pytest.approx(sum(e * e for e in errors) / 12, rel=1e-4)
    below = [row["reward"] < 5.5 for row in scores]  # the middle of 1 and 10; all targets are below
    assert summary["sign_accuracy"] == pytest.approx(sum(below) / 12, rel=1e-4)
    assert summary["ece"] is None and summary["train_groups"] == 9 and summary["mean"] == statistics["mean"]
    assert str(summary["validation_accuracy"]) == read_tsv("metrics/reward/eval.tsv")[-1]["eval_accuracy"]


def test_a_run_of_fewer_steps_than_eval_steps_is_validated_at_its_end(tiny, project):
    for kind in ("bradley_terry", "ranking"):
        reward.run("reward", params(tiny.policy, loss_type=kind, max_steps=2, eval_steps=50), SPLITS, [0.0, 1.0])
        assert [row["step"] for row in read_tsv("metrics/reward/eval.tsv")] == ["2"]


# ---- the benchmark


def test_the_kinds_of_the_benchmark_are_params():
    section = load_yaml(ROOT / "params.yaml")["reward"]
    for kind in reward_kinds.KINDS.values():
        check(RewardParams, {**section, **reward_kinds.PLAIN, **kind}, "reward")


def test_the_table_has_a_row_for_each_kind():
    measured = {
        "accuracy": 0.8,
        "accuracy_se": 0.01,
        "gold_accuracy": 0.9,
        "ece": 0.02,
        "fitted_mse": 0.03,
        "seconds": 7.6,
    }
    pairs, groups = {**measured, "train_pairs": 5}, {**measured, "train_groups": 4, "ece": None, "mse": 0.5}
    rows = reward_kinds.table({"bradley_terry": pairs, "mse": groups}).splitlines()[2:]
    assert rows == [
        "| bradley_terry | 5 | 0.800 ± 0.010 | 0.900 | 0.020 | – | 0.030 | – | 8 |",
        "| mse | 4 | 0.800 ± 0.010 | 0.900 | – | 0.500 | 0.030 | – | 8 |",
    ]
