"""The folder of the project, and projects of a single stage."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "rlhf_lib" / "preset" / "demo.yaml"  # params.yaml as it ships, whatever the one in the root holds now


def of_one_stage(folder: Path) -> Path:
    """The folder, made where there is none, with a stage (ppo) that does nothing; for what asks dvc.yaml of one."""
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text("policy: ppo\n")
    (folder / "dvc.yaml").write_text("stages: {ppo: {cmd: x, deps: []}}\n")
    return folder
