"""The presets that come with the project."""

from project import ROOT

PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
