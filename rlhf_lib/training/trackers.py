"""The trackers that a run is reported to, behind one interface: numbers and tables by optimizer step, then the end.

Each goes on in the run that it began where a stage is resumed. What lies in files is under `Run.root`, unless the
tracker's own environment variables say otherwise; nothing is sent but what is logged here: no weights, no code, no
telemetry.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

from rlhf_lib.common.rows import JsonObject

TABLE = "answers"  # the name under which they are logged


@dataclass(frozen=True)
class Run:
    """What a tracker is told of a run.

    stage, experiment, name: name is unique in the root, by a number where the experiment ran the stage before. root:
    the folder of all logs. config: params by section.key. ids: of the tracker's own, by its name; it may add one. A
    tracker that is in ids has been told of the run before.
    """

    stage: str
    experiment: str
    name: str
    root: Path
    config: Mapping[str, Any]
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def project(self) -> str:
        """What trackers that know several projects call this one: its folder's name."""
        return re.sub(r"[^\w.-]+", "-", self.root.parent.name).strip("-.") or "rlhf"


class Tracker(Protocol):
    """A place to report to. where: what to open, to see the run."""

    where: str

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, such as train/loss, of an optimizer step; steps never go back."""

    def table(self, rows: Sequence[JsonObject], step: int) -> None:
        """Rows that all have the same columns."""

    def close(self, failed: bool) -> None:
        """No more comes. failed: the stage was ended by an error, and may be resumed."""


class TensorBoard:
    """Event files in the run's own folder."""

    def __init__(self, run: Run) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            from tensorboardX import SummaryWriter  # type: ignore[no-redef]

        root = run.root.parent / Path(os.environ.get("TENSORBOARD_LOGGING_DIR", run.root)).expanduser()
        self.where = str(root / run.name)
        self.writer = SummaryWriter(self.where)
        if "tensorboard" not in run.ids:
            self.writer.add_text("params", markdown([{"param": k, "value": v} for k, v in run.config.items()]))
        run.ids["tensorboard"] = run.name

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def table(self, rows: Sequence[JsonObject], step: int) -> None:
        self.writer.add_text(TABLE, markdown(rows), step)
        self.writer.flush()

    def close(self, failed: bool) -> None:
        self.writer.close()


class Wandb:
    """Weights & Biases; with WANDB_MODE=offline, in files that `wandb sync` uploads."""

    def __init__(self, run: Run) -> None:
        import wandb

        run.root.mkdir(parents=True, exist_ok=True)
        self.table_class = wandb.Table
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", run.project),
            id=run.ids.setdefault("wandb", secrets.token_hex(4)),
            resume=None if os.environ.get("WANDB_MODE") == "offline" else "allow",
            name=run.name,
            group=run.experiment,
            job_type=run.stage,
            config=dict(run.config),
            dir=os.environ.get("WANDB_DIR", str(run.root)),
            save_code=False,
        )
        self.run.define_metric("*", step_metric="train/global_step")
        self.where = self.run.url or str(Path(self.run.dir).parent)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({**values, "train/global_step": step}, step=step)

    def table(self, rows: Sequence[JsonObject], step: int) -> None:
        columns = list(rows[0])
        data = [list(row.values()) for row in rows]
        self.run.log({TABLE: self.table_class(columns=columns, data=data), "train/global_step": step}, step=step)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class Trackio:
    """Trackio's local database, or a server of one's own."""

    def __init__(self, run: Run) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(run.root / "trackio"))
        import trackio

        self.trackio, folder = trackio, os.environ["TRACKIO_DIR"]
        self.where = os.environ.get("TRACKIO_SERVER_URL", f"TRACKIO_DIR={folder} trackio show --project {run.project}")
        with redirect_stdout(StringIO()):
            trackio.init(
                project=run.project,
                name=run.name,
                group=run.experiment,
                config=dict(run.config),
                resume="allow" if "trackio" in run.ids else "never",
                embed=False,
            )
        run.ids["trackio"] = run.name

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.trackio.log(dict(values), step=step)

    def table(self, rows: Sequence[JsonObject], step: int) -> None:
        import pandas

        self.trackio.log({TABLE: self.trackio.Table(dataframe=pandas.DataFrame(rows))}, step=step)

    def close(self, failed: bool) -> None:
        with redirect_stdout(StringIO()):
            self.trackio.finish()


class MLflow:
    """MLflow: a database under the root, or the server of MLFLOW_TRACKING_URI."""

    def __init__(self, run: Run) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.pop("MLFLOW_RUN_ID", None)  # one id is not that of several stages
        import mlflow

        self.mlflow = mlflow
        name, folder = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.project), run.root / "mlflow"
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            folder.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
            if mlflow.get_experiment_by_name(name) is None:
                mlflow.create_experiment(name, artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment(name)
        self.where = mlflow.get_tracking_uri()
        begun = run.ids.get("mlflow")
        tags = {"stage": run.stage, "experiment": run.experiment}
        run.ids["mlflow"] = mlflow.start_run(run_id=begun, run_name=run.name, tags=tags).info.run_id
        if begun is None:
            mlflow.log_params(dict(run.config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        allowed = {re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII): value for name, value in values.items()}
        self.mlflow.log_metrics(allowed, step=step)

    def table(self, rows: Sequence[JsonObject], step: int) -> None:
        self.mlflow.log_table({column: [row[column] for row in rows] for column in rows[0]}, f"{TABLE}.json")

    def close(self, failed: bool) -> None:
        self.mlflow.end_run("FAILED" if failed else "FINISHED")


TRACKERS: dict[str, Callable[[Run], Tracker]] = {
    "mlflow": MLflow,
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same columns as a table in Markdown, in which no cell's text is a sign of Markdown or HTML."""
    header = list(rows[0]) if rows else []
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", text).replace("\r", "").replace("\n", "<br>")
