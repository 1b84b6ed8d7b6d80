import json

import pytest
import torch
from conftest import TEXTS
from test_ppo_rollout import ppo_params
from transformers import TrainerCallback, TrainingArguments

from rlhf_lib import base, models, training
from rlhf_lib.chat import prompt_ids
from rlhf_lib.checkpoint import CheckpointDir
from rlhf_lib.generation import text
from rlhf_lib.logprobs import collate
from rlhf_lib.params.schema import ParamsError
from rlhf_lib.ppo import run
from rlhf_lib.ppo.algos import adapt_kl_coef
from rlhf_lib.ppo.model import with_shared_critic
from rlhf_lib.ppo.trainer import PPOTrainer
from rlhf_lib.rewards import RewardModel

CPU = torch.device("cpu")
PROMPTS = [[{"role": "user", "content": text}] for text in TEXTS]
EVAL_PROMPTS = [[{"role": "user", "content": f"What is a {noun}?"}] for noun in ("cat", "dog", "sky")]
DEFAULTS = {"temperature": 0.8, "eval_rollouts": 100, "save_rollouts": 100, "max_grad_norm": 0.0}
CRITICS = pytest.mark.parametrize("critic", ["shared", "separate"])


@pytest.fixture(scope="module")
def policy_dir(tiny, tmp_path_factory):
    """The tiny policy, which here ends its response with any token with a probability of about a tenth."""
    path = tmp_path_factory.mktemp("policy")
    policy, tokenizer = models.load_policy(tiny.policy), models.load_tokenizer(tiny.policy)
    with torch.no_grad():
        eos = policy.get_input_embeddings().weight[tokenizer.eos_token_id]
        policy.transformer.ln_f.bias.copy_(3.5 * eos / eos.square().sum())
    models.save(policy, tokenizer, path)
    return path


@pytest.fixture
def build(tiny, policy_dir, tmp_path, monkeypatch):
    """A function of params that gives a trainer; those it gave have one directory of checkpoints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / "params.yaml").write_text("policy: ppo\n")
    (tmp_path / "dvc.yaml").write_text("stages: {ppo: {cmd: x, deps: []}}\n")
    checkpoints = CheckpointDir("ppo")

    def build(policy=policy_dir, **changes):
        params = ppo_params(**{**DEFAULTS, **changes})
        trainer = run.build(params, str(policy), str(tiny.reward), PROMPTS, EVAL_PROMPTS, checkpoints)
        trainer.checkpoints = checkpoints
        return trainer

    return build


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def rows(trainer, key="loss"):
    """The logged rows that have `key`, without what differs from run to run."""
    log = [entry for entry in trainer.state.log_history if key in entry]
    return [{k: v for k, v in entry.items() if k != "epoch" and "runtime" not in k} for entry in log]


def column(trainer, key):
    return [row[key] for row in rows(trainer, key)]


def watch_forward(trainer):
    """Lists, filled while it trains, of the outputs for the scoring of rollouts and of those for the updates."""
    scored, updated = [], []

    def keep(module, inputs, output):
        (updated if torch.is_grad_enabled() else scored).append(type(output)(*(x.detach().clone() for x in output)))

    trainer.model.register_forward_hook(keep)
    return scored, updated


class Gradients(TrainerCallback):
    """Keeps the gradients of every optimizer step, flat, as the optimizer gets them."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append(torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None]))


def gradients(trainer):
    callback = Gradients()
    trainer.add_callback(callback)
    trainer.train()
    return callback.steps


# ---- Before the first update


@CRITICS
def test_policy_and_reference_are_equal_until_the_first_update(build, critic):
    trainer = build(critic=critic)
    trainer.train()
    first, second = column(trainer, "kl")
    assert first == 0.0 and second != 0.0
    assert 0 < column(trainer, "eos_rate")[0] < 1  # so that rows were padded


@pytest.mark.parametrize("response_length", [2, 4, 8])
def test_policy_and_reference_are_equal_at_every_length(build, response_length):
    """Both models go through the same kernels, whichever of their shapes PyTorch has a special one for."""
    trainer = build(total_rollouts=1, response_length=response_length)
    trainer.train()
    assert column(trainer, "kl") == [0.0]


@CRITICS
def test_the_first_ratio_is_exactly_1(build, critic):
    trainer = build(critic=critic, total_rollouts=1)
    scored, updated = watch_forward(trainer)
    trainer.train()
    micro_batches = trainer.args.gradient_accumulation_steps
    assert micro_batches == 2
    for old, new in list(zip(scored, updated, strict=False))[:micro_batches]:
        assert new.logprobs.equal(old.logprobs) and new.values.equal(old.values)
    assert not updated[micro_batches].logprobs.equal(scored[micro_batches].logprobs)


@CRITICS
def test_without_learning_the_ratio_stays_1(build, critic):
    trainer = build(critic=critic, learning_rate=0.0)
    before = weights(trainer.model)
    trainer.train()
    assert same(before, weights(trainer.model))
    assert column(trainer, "ratio") == pytest.approx([1.0, 1.0], abs=1e-5)
    assert column(trainer, "approx_kl") == pytest.approx([0.0, 0.0], abs=1e-9)
    assert column(trainer, "clip_fraction") == [0.0, 0.0]
    assert column(trainer, "kl") == [0.0, 0.0]


def test_dropout_in_the_config_does_not_change_the_first_ratio(build, policy_dir, tmp_path):
    noisy = models.load_policy(policy_dir)
    noisy.config.update({"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5})
    models.save(noisy, models.load_tokenizer(policy_dir), tmp_path / "noisy")
    trainer = build(tmp_path / "noisy", total_rollouts=1)
    scored, updated = watch_forward(trainer)
    trainer.train()
    assert updated[0].logprobs.equal(scored[0].logprobs)
    assert column(trainer, "kl") == [0.0]
    ids = torch.tensor([[5, 6, 7]])
    noisy = models.load_policy(tmp_path / "noisy").train()
    assert not noisy(ids).logits.equal(noisy(ids).logits)


def test_ratio_and_kl_are_exact_in_bfloat16_too(policy_dir, tiny, tmp_path):
    params = ppo_params(total_rollouts=1, temperature=0.8)
    device = {**training.device_kwargs(), "use_cpu": True, "bf16": True}
    args = TrainingArguments(**params.trainer_config(), **device, report_to="none", output_dir=str(tmp_path))
    trainer = PPOTrainer(
        params,
        run.actor_critic(params, str(policy_dir), str(tiny.reward)),
        reference=models.load_policy(policy_dir),
        reward=RewardModel.load(tiny.reward),
        tokenizer=models.load_tokenizer(policy_dir),
        args=args,
        train_prompts=PROMPTS,
        eval_prompts=EVAL_PROMPTS,
    )
    scored, updated = watch_forward(trainer)
    trainer.train()
    assert updated[0].logprobs.equal(scored[0].logprobs)
    assert column(trainer, "kl") == [0.0]


# ---- The critic


def dialogues(tokenizer):
    prompts = [prompt_ids(tokenizer, prompt) for prompt in PROMPTS[:3]]
    prompts[1] = prompts[1][-4:]
    return prompts, [[40, 41, 42], [50], [60, 61, 62, 63, 64]]


def test_a_separate_critic_starts_as_the_normalised_reward_model(policy_dir, tiny):
    model = run.actor_critic(ppo_params(critic="separate"), str(policy_dir), str(tiny.reward))
    reward, tokenizer = RewardModel.load(tiny.reward), models.load_tokenizer(tiny.reward)
    prompts, responses = dialogues(tokenizer)
    with torch.no_grad():
        values = model(collate(prompts, responses, tokenizer.pad_token_id, CPU), 0.8).values
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            for k in range(len(response)):
                score = reward.model(torch.tensor([prompt + response[:k]])).logits.item()
                assert values[row, k].item() == pytest.approx((score - reward.mean) / reward.std, abs=1e-5)
            assert values[row, len(response) :].eq(0).all()


def test_a_shared_critic_is_a_head_on_the_policys_last_hidden_state(policy_dir):
    model = with_shared_critic(models.load_policy(policy_dir))
    tokenizer = models.load_tokenizer(policy_dir)
    prompts, responses = dialogues(tokenizer)
    batch = collate(prompts, responses, tokenizer.pad_token_id, CPU)
    with torch.no_grad():
        assert model(batch, 1.0).values.eq(0).all()
        torch.nn.init.normal_(model.value_head.weight)
        values = model(batch, 1.0).values
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            ids = torch.tensor([prompt + response])
            hidden = model.policy(ids, output_hidden_states=True).hidden_states[-1][0]
            expected = model.value_head(hidden[len(prompt) - 1 : -1]).squeeze(-1)
            torch.testing.assert_close(values[row, : len(response)], expected, atol=1e-5, rtol=0)


def test_the_reward_does_not_learn_with_a_critic_that_starts_from_it(build):
    trainer = build(critic="separate")
    before, critic = weights(trainer.reward.model), weights(trainer.model.critic_trunk)
    trainer.train()
    assert same(before, weights(trainer.reward.model))
    assert not same(critic, weights(trainer.model.critic_trunk))


def test_a_separate_critic_needs_the_policys_tokenizer(tiny, policy_dir, tmp_path):
    tokenizer = base.fresh_tokenizer(["other words entirely"], 300)
    models.save(models.load_reward(tiny.reward), tokenizer, tmp_path)
    with pytest.raises(ParamsError, match=r"^params.yaml: ppo\.critic: .*set it to shared$"):
        run.actor_critic(ppo_params(critic="separate"), str(policy_dir), str(tmp_path))


# ---- The update


@CRITICS
def test_the_gradient_does_not_depend_on_the_micro_batch_size(build, critic):
    one_step = {"total_rollouts": 1, "num_ppo_epochs": 1, "num_minibatches": 1, "whiten_advantages": True}
    whole, *parts = (
        gradients(build(critic=critic, vf_coef=0.5, per_device_train_batch_size=size, **one_step)) for size in (8, 2, 1)
    )
    assert len(whole) == 1 and whole[0].abs().max() > 1e-2
    for part in parts:
        assert len(part) == 1
        assert (part[0] - whole[0]).norm() < 1e-6 * whole[0].norm()


def test_the_loss_is_that_of_policy_and_critic(build):
    trainer = build(vf_coef=0.3)
    trainer.train()
    for row in rows(trainer):
        assert row["loss"] == pytest.approx(row["policy_loss"] + 0.3 * row["value_loss"], abs=1e-4)
        assert row["value_loss"] > 1e-3


def test_the_schedule_has_a_step_for_every_optimizer_step(build):
    trainer = build(total_rollouts=3, num_ppo_epochs=2, num_minibatches=4)
    steps = gradients(trainer)
    assert len(steps) == trainer.state.global_step == trainer.lr_scheduler.last_epoch == 3 * 2 * 4
    assert trainer.optimizer.param_groups[0]["lr"] == 0.0
    # logged after 8, 16 and 24 of 24 steps, each the rate of the step before
    assert column(trainer, "learning_rate") == pytest.approx([1e-3 * (25 - step) / 24 for step in (8, 16, 24)])


def test_gradients_are_clipped_to_max_grad_norm(build):
    one_step = {"total_rollouts": 1, "num_ppo_epochs": 1, "num_minibatches": 1}
    free = build(**one_step)
    (whole,) = gradients(free)
    clipped = build(max_grad_norm=0.01, **one_step)
    (cut,) = gradients(clipped)
    assert whole.norm() > 0.1
    assert cut.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert column(clipped, "grad_norm") == pytest.approx([whole.norm().item()], rel=1e-4)
    assert column(free, "grad_norm") == pytest.approx([whole.norm().item()], rel=1e-4)


def contains_e(prompts, completions):
    return [float("e" in completion) for completion in completions]


def test_the_policy_learns_a_rule(build):
    lengths = {"rollout_batch_size": 32, "per_device_train_batch_size": 16, "total_rollouts": 15}
    trainer = build(learning_rate=1e-2, lr_scheduler_type="constant", kl_coef=0.01, whiten_advantages=True, **lengths)
    trainer.reward = contains_e
    trainer.train()
    rewards = column(trainer, "reward")
    assert sum(rewards[:2]) / 2 < 0.3
    assert sum(rewards[-3:]) / 3 > 0.7
    assert column(trainer, "kl")[-1] > 1.0


# ---- Rollouts


class Snapshots(TrainerCallback):
    """The weights after each optimizer step, by its number."""

    def __init__(self):
        self.at = {}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.at[state.global_step] = weights(model.policy)


def test_each_rollout_is_sampled_from_the_policy_after_the_last_update(build):
    trainer, snapshots, sampled = build(total_rollouts=3), Snapshots(), []
    snapshots.at[0] = weights(trainer.model.policy)

    def reward(prompts, completions):
        if prompts != EVAL_PROMPTS:
            sampled.append((trainer.state.global_step, weights(trainer.model.policy)))
        return [0.5] * len(prompts)

    trainer.reward = reward
    trainer.add_callback(snapshots)
    trainer.train()
    assert [step for step, _ in sampled] == [0, 4, 8]
    assert all(same(policy, snapshots.at[step]) for step, policy in sampled)
    assert not same(snapshots.at[3], snapshots.at[4])


def test_the_reward_is_a_function_of_messages_and_texts(build):
    trainer, seen = build(), []

    def reward(prompts, completions):
        seen.append((prompts, completions))
        return [float(i) for i in range(len(prompts))]

    trainer.reward = reward
    indices = [3, 0, 8, 3, 5]
    rollout = trainer.sample(indices)
    ((prompts, completions),) = seen
    assert prompts == [PROMPTS[i] for i in indices]
    tokenizer = trainer.processing_class
    assert completions == [text(tokenizer, response) for response in rollout.responses]
    assert all(isinstance(completion, str) and tokenizer.eos_token not in completion for completion in completions)
    assert any(response.finished for response in rollout.responses)
    assert rollout.prompts == [prompt_ids(tokenizer, PROMPTS[i]) for i in indices]
    assert rollout.scores.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_every_pass_over_the_prompts_holds_each_once(build):
    trainer, other = build(), build(seed=1)
    walk = [row for index in range(9) for row in trainer.prompt_rows(index)]
    passes = [walk[start : start + 9] for start in range(0, 72, 9)]
    assert all(sorted(one) == list(range(9)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1
    assert trainer.prompt_rows(4) == walk[32:40]
    assert other.prompt_rows(0) != trainer.prompt_rows(0)


def test_a_rollout_may_be_larger_than_the_prompts(build):
    rows = build(rollout_batch_size=24).prompt_rows(0)
    assert len(rows) == 24 and sorted(rows[:18]) == sorted(2 * list(range(9)))


def test_responses_without_room_for_a_prompt_are_refused_in_one_line(build):
    with pytest.raises(SystemExit, match=r"ppo\.response_length: 60 new tokens") as error:
        build(response_length=60)
    assert "\n" not in str(error.value)


def test_an_adaptive_kl_coefficient_follows_the_kl(build):
    adaptive = {"kl_target": 0.02, "kl_horizon": 40.0, "learning_rate": 3e-3}
    trainer = build(total_rollouts=6, lr_scheduler_type="constant", **adaptive)
    trainer.train()
    coefficients, kls = column(trainer, "kl_coef"), column(trainer, "kl")
    expected = [0.1]
    for kl in kls[:-1]:
        expected.append(adapt_kl_coef(expected[-1], kl, target=0.02, horizon=40.0, rows=8))
    assert coefficients == pytest.approx(expected)
    assert coefficients[1] == pytest.approx(0.096)  # a first KL of 0 is below any target: 0.1 (1 - 0.2 * 8 / 40)
    assert max(kls) > 0.024 and max(coefficients) > 0.1


# ---- Evaluation


def test_evaluation_leaves_the_training_as_it_was(build):
    often = build(total_rollouts=3, eval_rollouts=1)
    often.train()
    never = build(total_rollouts=3)
    never.train()
    assert len(rows(often, "eval_reward")) == 3 and len(rows(never, "eval_reward")) == 1
    assert same(weights(often.model), weights(never.model))
    assert rows(often) == rows(never)


def test_evaluation_measures_the_responses_to_its_prompts(build):
    trainer, seen = build(), []

    def reward(prompts, completions):
        seen.append((prompts, completions))
        return [1.0, 2.0, 6.0]

    trainer.reward = reward
    state = torch.get_rng_state()
    metrics = trainer.evaluate()
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(77)
    assert trainer.evaluate() == metrics and seen[0] == seen[1]
    assert seen[0][0] == EVAL_PROMPTS
    assert metrics["eval_reward"] == 3.0 and metrics["eval_kl"] == 0.0
    assert 1 <= metrics["eval_length"] <= 8 and 0 <= metrics["eval_eos_rate"] <= 1


# ---- Kill and resume


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


RESUMABLE = {"total_rollouts": 4, "eval_rollouts": 1, "save_rollouts": 1, "kl_target": 0.02, "kl_horizon": 40.0}


@CRITICS
def test_a_killed_run_goes_on_to_the_same_weights_and_log(build, critic):
    whole = build(critic=critic, **RESUMABLE)
    training.run(whole, whole.checkpoints)
    whole.checkpoints.remove()
    whole.checkpoints.path.mkdir()

    killed = build(critic=critic, **RESUMABLE)
    killed.add_callback(KillAt(10))  # within the third rollout, of steps 9 to 12
    with pytest.raises(Killed):
        training.run(killed, killed.checkpoints)
    latest = killed.checkpoints.latest()
    assert latest.endswith("checkpoint-8")
    resumed = build(critic=critic, **RESUMABLE)
    torch.manual_seed(99)
    training.run(resumed, resumed.checkpoints)

    assert same(weights(whole.model), weights(resumed.model))
    assert rows(whole) == rows(resumed) and len(rows(whole)) == 4
    assert rows(whole, "eval_reward") == rows(resumed, "eval_reward")
    assert len(set(column(whole, "kl_coef"))) == 4
    assert resumed.state.global_step == resumed.lr_scheduler.last_epoch == 16


def test_a_run_killed_after_its_last_checkpoint_has_nothing_left_to_do(build):
    whole = build(save_rollouts=1)
    training.run(whole, whole.checkpoints)
    resumed = build(save_rollouts=1)
    training.run(resumed, resumed.checkpoints)
    assert same(weights(whole.model), weights(resumed.model))
    assert rows(whole) == rows(resumed)


def test_a_checkpoint_holds_the_weights_once(build):
    trainer = build(critic="separate", save_rollouts=1)
    training.run(trainer, trainer.checkpoints)
    (checkpoint,) = trainer.checkpoints.path.glob("checkpoint-*")
    size = (checkpoint / "actor_critic.safetensors").stat().st_size
    assert size == pytest.approx(4 * sum(p.numel() for p in trainer.model.parameters()), rel=0.1)
    assert "kl_coef" in json.loads((checkpoint / "rollout.json").read_text())
    assert not (checkpoint / "model.safetensors").exists()


def test_the_reference_stays_as_it_was(build):
    trainer = build()
    before = weights(trainer.reference)
    trainer.train()
    assert same(before, weights(trainer.reference))
    assert not same(before, weights(trainer.model.policy))
