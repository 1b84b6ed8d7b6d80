"""The model card: what it tells, what huggingface_hub makes of it, and what it does not tell."""

import json
import subprocess
from pathlib import Path

import pytest
from lm_eval_entries import entry
from locked_run import write_lock

from rlhf_lib.common.dvc_project import md5
from rlhf_lib.common.files import write_json
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.export import card, facts
from rlhf_lib.export.options import License

SAMPLING = {"do_sample": True, "temperature": 1.0, "max_new_tokens": 48}
NUMBERS = ("## Numbers", "±")


def model(name="dpo", dtype="fp32", **more):
    fields = {"parameters": 337536, "stops": ["<|end|>", "</s>\n"], "sampling": SAMPLING, "context": 160}
    return facts.Model(name, dtype, **fields | more)


def text(path="models/dpo", license=License(), **more):  # noqa: B008 -- it is frozen
    return card.render(facts.of(path), model(**more), license, None, None)


def loaded(content, tmp_path):
    from huggingface_hub import ModelCard

    (tmp_path / "README.md").write_text(content, encoding="utf-8")
    return ModelCard.load(tmp_path / "README.md", ignore_metadata_errors=False)


def test_the_card_has_the_numbers_of_the_run_with_their_errors(run):
    run()
    said, measured = text(), json.loads(Path("metrics/eval/dpo.json").read_text())["t1"]
    for key, heading in (("gold", "true quality"), ("gold_gain", "gain over SFT")):
        sign = "+" if key == "gold_gain" else ""
        assert f"| {heading} | {measured[key]:{sign}.3f} ± {measured[f'{key}_se']:.3f} |" in said
    assert "PPO did better than DPO" in said and "| best of 4 " in said
    assert "TRL's DPOTrainer" in said and "4,886 rows were read, and 4,600 kept" in said
    assert "| dropped rows | duplicate prompt | 98 |" in said
    assert "beta: 0.2" in said and "kl_coef" not in said  # params of the way to this model alone
    assert "`<|end|>` or `</s>\\n`" in said


def test_huggingface_hub_reads_it_without_complaint(run, tmp_path):
    source = {"reader": "ultrafeedback_binarized"}
    run(base={"model_name_or_path": "openai-community/gpt2", "model_revision": "a" * 40}, sources=[source])
    data = loaded(text(license=License("apache-2.0")), tmp_path).data
    assert (data.base_model, data.license, data.library_name) == ("openai-community/gpt2", "apache-2.0", "transformers")
    assert data.datasets == ["HuggingFaceH4/ultrafeedback_binarized"] and data.language == ["en"]
    assert data.tags == ["dpo", "trl", "rlhf", "dvc"] and data.pipeline_tag == "text-generation"


def test_the_license_is_unknown_unless_it_is_said(run, tmp_path):
    run()
    assert loaded(text(), tmp_path).data.license == "unknown" and "Not stated" in text()
    named = loaded(text(license=License("other", "mine", "https://example.com/mine")), tmp_path).data
    assert (named.license, named.license_name, named.license_link) == ("other", "mine", "https://example.com/mine")


def test_a_model_of_a_folder_is_no_model_of_the_hub_and_no_folder_is_told(run, tmp_path):
    root = run()
    params = load_yaml(root / "params.yaml")
    params["base"]["model_name_or_path"] = "/home/ann/secret/gpt2"
    params["load"]["sources"] = [{"reader": "file", "path": "/home/ann/secret/answers.csv"}]
    (root / "data/inputs/base.json").write_text('{"/home/ann/secret/gpt2/config.json": "0"}\n')
    write_lock(params)
    said = text()
    assert loaded(said, tmp_path).data.base_model is None
    assert "the model of a local directory, `gpt2`" in said and "a local file, `answers.csv`" in said
    assert "/home" not in said and "secret" not in said and str(root) not in said


def test_the_params_and_splits_are_those_of_the_model_and_of_what_measured_it(run):
    run()
    said = text()
    of_model, of_numbers = said.split("## Params")[1].split("Of the numbers:")
    assert "temperatures:" in of_numbers and "samples_per_prompt: 2" in of_numbers and "temperatures:" not in of_model
    assert "\njudge:\n" in of_numbers and "\nreward:\n" in of_numbers and "\nsft:\n" not in of_numbers
    assert "| groups_train " not in said and "| thumbs_train " not in said and "| preference_train " in said
    # the reward model is on the way to PPO, and is told once
    of_model, of_numbers = text("models/ppo", name="ppo").split("## Params")[1].split("Of the numbers:")
    assert "\nreward:\n" in of_model and "\nreward:\n" not in of_numbers


def lm_eval(**hashes):
    """metrics/lm_eval.json, in which each model has these MD5 sums."""
    numbers = (0.5, 0.05, -0.25, 0.04)
    known = {f"models/{name}": {"arc": entry(*numbers, model_md5=hashed)} for name, hashed in hashes.items()}
    write_json("metrics/lm_eval.json", known)


def test_capability_is_told_of_these_very_files_alone(run):
    root = run()
    (root / "metrics/lm_eval.json").unlink(missing_ok=True)
    assert "## Capability" not in text()
    assert "true was measured by the rule of true quality alone" in text()
    lm_eval(sft=md5("models/sft"), dpo=md5("models/dpo"))
    said = text()
    row = next(line for line in said.splitlines() if line.startswith("| arc "))
    assert "0.500 ± 0.050" in row and "−0.250 ± 0.040" in row and "DPO against SFT: worse in arc acc −0.250" in said
    assert "the rule of true quality and the questions of the tasks below alone" in said
    lm_eval(sft="of another run", dpo=md5("models/dpo"))  # less which SFT model?
    assert "0.500 ± 0.050" in text() and "−0.250" not in text()
    lm_eval(sft=md5("models/sft"), dpo="of another run")
    assert "## Capability" not in text()


def test_nothing_measured_is_said_where_nothing_was(run):
    root = run()
    edit_metrics(root)
    (root / "metrics/lm_eval.json").unlink(missing_ok=True)
    assert "or measured whether what it says is true, safe or fair" in text()


def edit_model(root):
    (root / "models/dpo/config.json").write_text("{}")


def edit_metrics(root):
    (root / "metrics/eval/dpo.json").write_text("{}")


def retrain_alone(root):
    """Training ran again, and the evaluation did not."""
    edit_model(root)
    lock = (root / "dvc.lock").read_text()
    stages = load_yaml(root / "dvc.lock")["stages"]
    (old,) = (out["md5"] for out in stages["dpo"]["outs"])
    before, dpo, after = lock.partition("  dpo:\n")
    (root / "dvc.lock").write_text(before + dpo + after.replace(old, str(md5("models/dpo")), 1))


def other_temperatures(root):
    params = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(params.replace("temperatures:\n  - 1.0", "temperatures:\n  - 0.3"))


def no_metrics(root):
    (root / "metrics/eval/dpo.json").unlink()


def no_lock(root):
    (root / "dvc.lock").unlink()


def merged_lock(root):
    lock = (root / "dvc.lock").read_text()
    (root / "dvc.lock").write_text(f"<<<<<<< HEAD\n{lock}=======\n{lock}>>>>>>> other\n")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edit_model, "its files are not those that dvc.lock records"),
        (edit_metrics, "metrics/eval/dpo.json is not what dvc.lock records"),
        (retrain_alone, "models/dpo is not the one that stage evaluate@dpo read"),
        (other_temperatures, "the run's files cannot be read (metrics/eval/sft.json: measured with other temperatures"),
        (no_metrics, "metrics/eval/dpo.json is not here"),
        (no_lock, "dvc.lock knows no model with these files"),
        (
            merged_lock,
            "dvc.lock: line 1: a mark of git's merge; keep one side, without the marks; make repro repairs it",
        ),
    ],
)
def test_numbers_that_may_be_of_another_model_are_not_told(run, tmp_path, change, told):
    change(run())
    said = text()
    assert f"> **No numbers:** {told}" in said
    assert not any(word in said for word in NUMBERS)
    assert loaded(said, tmp_path).data.license == "unknown"


def test_a_policy_whose_numbers_are_stale_is_left_out_of_the_comparison(run):
    root = run()
    assert "| PPO " in text()
    (root / "metrics/eval/ppo.json").write_bytes((root / "metrics/eval/ppo.json").read_bytes() + b"\n")
    said = text()
    assert "| PPO " not in said and "| DPO " in said and "## Numbers" in said


def test_what_it_is_not_good_for_is_of_this_run(run):
    root = run()
    said = text(dtype="bf16")
    assert "337,536 parameters, and attends to 160 tokens" in said
    assert "single questions" in said and "no person has judged" in said
    assert "Texts in other languages than en" in said and "measured in fp32; these weights are bf16" in said
    assert "a demo's data" in said and "Quality is that of a rule" in said
    turns = [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "user")]
    (root / "data/splits/preference_train.jsonl").write_text(json.dumps({"prompt": turns}) + "\n")
    write_lock(load_yaml(root / "params.yaml"))
    assert "single questions" not in text() and "system message" not in text()


def test_the_commit_and_whether_there_are_changes(run):
    root = run()
    assert "no git repository" in text()
    for command in ("init -q", "add -A", "-c user.name=a -c user.email=b commit -qm x"):
        subprocess.run(["git", *command.split()], check=True, cwd=root)
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=root, text=True).strip()
    assert f"`{head}`, without changes" in text()
    (root / "params.yaml").write_text((root / "params.yaml").read_text() + "\n")
    assert f"`{head}`, with uncommitted changes in `params.yaml`" in text()
