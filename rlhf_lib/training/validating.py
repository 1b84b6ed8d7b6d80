"""A validation whose numbers are means over all its rows, or tokens, in whatever batches and processes.

TRL takes means over batches, however many rows or tokens each had, and over processes, whose batches accelerate evens
out with rows from the beginning, which would count twice. Here each process measures its own batches by itself, and at
the end all is put together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from rlhf_lib.models import heap
from rlhf_lib.training.sealing import SealedCheckpoints

Sums = dict[str, tuple[float, int]]  # of what is measured: its sum, and over how many rows, or tokens


def own_batches(rows: int, size: int, process: int, processes: int) -> list[range]:
    """The rows of each batch of a process: every n-th batch of n processes. All have equally many; where there are no
    more rows for one, its last batch is empty."""
    rounds = -(-rows // (size * processes))
    starts = range(process * size, rounds * processes * size, processes * size)
    return [range(min(start, rows), min(start + size, rows)) for start in starts]


class Validating(SealedCheckpoints):
    """A trainer whose validation counts every row once, whatever the batches and the processes; a base of others."""

    _sizes: Iterator[int]  # of this process's batches to come
    _sums: Sums  # of this process's batches so far

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Trainer's; in several processes, of this one's batches. In place of an empty one there is one of a row that
        does not count: where weights are sharded, every process is needed to compute."""
        if self.accelerator.num_processes == 1:
            return super().get_eval_dataloader(eval_dataset)
        rows = self._remove_unused_columns(eval_dataset or self.eval_dataset, description="Evaluation")
        order = list(self._get_eval_sampler(rows) or range(len(rows)))
        batches = [[order[place] for place in batch or range(1)] for batch in self._own_batches(len(rows))]
        pin_memory = self.args.dataloader_pin_memory
        return DataLoader(rows, batch_sampler=batches, collate_fn=self.data_collator, pin_memory=pin_memory)

    def _own_batches(self, rows: int) -> list[range]:
        return own_batches(rows, self.args.eval_batch_size, self.args.process_index, self.accelerator.num_processes)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        self._sizes, self._sums = map(len, self._own_batches(len(dataloader.dataset))), {}
        heap.clear()
        found = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        heap.clear()
        means = self.means()
        found.metrics[f"{metric_key_prefix}_loss"] = means.pop("loss")
        self._metrics["eval"].update({name: [mean] for name, mean in means.items()})
        return found

    def means(self) -> dict[str, float]:
        """What all processes have measured on the validation rows, and their loss."""
        together: Sums = {}
        for sums in gather_object([self._sums]):
            for name, (total, count) in sums.items():
                _add(together, name, total, count)
        return {name: total / count for name, (total, count) in together.items()}

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Trainer's. TRL averages what it measures over batches, and Trainer the loss over rows: each counts here as
        `count` says, so that a last batch of a single row counts no more than that."""
        measured, rows = self._metrics["eval"], next(self._sizes)
        with _alone(self.accelerator):
            found = super().prediction_step(model, inputs, *args, **kwargs)
        of_batch = {"loss": float(found[0]), **{name: float(values[-1]) for name, values in measured.items()}}
        measured.clear()
        for name, mean in of_batch.items():
            if count := self.count(name, inputs, rows) if rows else 0:
                _add(self._sums, name, count * mean, count)
        return found

    def count(self, name: str, inputs: dict[str, Any], rows: int) -> int:
        """Of how much the number `name` of a batch is the mean: of its rows."""
        return rows


def _add(sums: Sums, name: str, total: float, count: int) -> None:
    before = sums.get(name, (0.0, 0))
    sums[name] = (before[0] + total, before[1] + count)


@contextmanager
def _alone(accelerator: Accelerator) -> Iterator[None]:
    """A context in which nothing is gathered from other processes."""
    names = ("gather", "gather_for_metrics")
    vars(accelerator).update(dict.fromkeys(names, lambda own: own))
    try:
        yield
    finally:
        for name in names:
            del vars(accelerator)[name]
