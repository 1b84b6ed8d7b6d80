"""Where the stages that train report to, beside the files that DVC tracks: the environment variable REPORT_TO.

Names of trackers, as transformers' `report_to` has them, with commas between. DVC does not hash the environment, so
that no stage runs again for it. Nothing heavy is imported here: what is wrong is told before anything loads.
"""

from __future__ import annotations

import configparser
import difflib
import netrc
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from rlhf_lib.common.yaml import ParamsError

VARIABLE = "REPORT_TO"
# transformers' names for trackers, and the packages of which each needs one
PACKAGES = {
    **{name: (name,) for name in ("clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "mlflow", "neptune")},
    **{name: (name,) for name in ("swanlab", "trackio", "wandb")},
    **{
        "azure_ml": ("azureml",),
        "flyte": ("flytekit",),
        "kubeflow": (),
        "tensorboard": ("tensorboard", "tensorboardX"),
    },
}
REFUSED = {
    "all": "installed is not wanted: name the trackers, such as tensorboard",
    "dvclive": "would write over dvc.yaml, and DVC has these curves in metrics/ already; take it out",
}
# what wandb reads when it is imported
WANDB = {
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_CONSOLE": "off",  # what a stage prints stays here
    "WANDB_SILENT": "true",  # its summary of every run, among the bars of others
}


def chosen() -> list[str]:
    """The trackers that REPORT_TO names, each once; none where it is not set, empty or none."""
    names = (name.strip() for name in os.environ.get(VARIABLE, "").split(","))
    return [name for name in dict.fromkeys(names) if name not in ("", "none")]


def check() -> None:
    """A `ParamsError` for the first fault of REPORT_TO; to be called before TRL is imported, which imports wandb
    wherever that is installed."""
    for fault in faults():
        raise ParamsError(fault)
    if "wandb" not in chosen():
        sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]  # for Python, it is not installed then
        return
    for name, value in WANDB.items():
        os.environ.setdefault(name, value)
    try:
        import wandb  # noqa: F401
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ParamsError(f"{VARIABLE}: wandb: cannot be imported ({told}); install it again, or take it out") from None


def faults() -> Iterator[str]:
    """What is wrong with REPORT_TO, a line each: names that are none, libraries that are not here, settings that a
    tracker cannot do without."""
    for name in chosen():
        if name in REFUSED:
            yield f"{VARIABLE}: {name}: {REFUSED[name]}"
        elif name not in PACKAGES:
            near = difflib.get_close_matches(name.lower(), PACKAGES, n=1)
            way_out = f"did you mean {near[0]}?" if near else f"known: {', '.join(_served())}"
            yield f"{VARIABLE}: {name[:100]!r} is no tracker that transformers knows; {way_out}"
        elif PACKAGES[name] and not any(map(find_spec, PACKAGES[name])):
            package = PACKAGES[name][0].replace("_", "-")
            yield f"{VARIABLE}: {name}: the package {package} is not installed; pip install {package}, or take it out"
        elif fault := {"trackio": _trackio_fault, "wandb": _wandb_fault}.get(name, lambda: None)():
            yield f"{VARIABLE}: {name}: {fault}"


def _served() -> list[str]:
    return sorted({*PACKAGES} - {*REFUSED})


def _trackio_fault() -> str | None:
    if "TRACKIO_SPACE_ID" not in os.environ:
        return None
    return (
        "TRACKIO_SPACE_ID is set, but the stages do not reach the hub; unset it: trackio sync uploads what was logged"
    )


def _wandb_fault() -> str | None:
    """What to do where wandb would ask for a key, which no stage can answer."""
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared"):
        return None
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")) or _has_key():
        return None
    return "no API key; set WANDB_API_KEY, log in (wandb login), or set WANDB_MODE=offline, which keeps all here"


def _has_key() -> bool:
    """Whether wandb's files have a key, or say that it is to stay offline; so too where they cannot be read."""
    folder = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")).expanduser()
    settings = configparser.ConfigParser()
    try:
        settings.read([folder / "settings", "wandb/settings"])
        values = settings["default"] if settings.has_section("default") else {}
        if values.get("mode", "online") not in ("online", "shared") or "api_key" in values:
            return True
        host = urlsplit(os.environ.get("WANDB_BASE_URL") or values.get("base_url") or "https://api.wandb.ai").hostname
        files = [Path(os.environ.get("NETRC", "~/.netrc")).expanduser(), Path("~/_netrc").expanduser()]
        return any(file.is_file() and netrc.netrc(file).authenticators(host or "") for file in files)
    except (OSError, UnicodeError, configparser.Error, netrc.NetrcParseError):
        return True  # wandb will say
