"""The folder of the project."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "rlhf_lib" / "preset" / "demo.yaml"  # params.yaml as it ships, whatever the one in the root holds now
