"""A validation in several processes: of the same batches as in one, with the same loss and metrics.

accelerate evens the processes' batches out with rows from the beginning, which would count twice, and TRL takes means
over the processes, however many rows each had. Here each measures its own batches by itself, and at the end all is put
together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from rlhf_lib.training.sealing import SealedCheckpoints


def own_batches(rows: int, size: int, process: int, processes: int) -> list[range]:
    """The rows of each batch of a process: every n-th batch of n processes. All have equally many; where there are no
    more rows for one, its last batch is empty."""
    rounds = -(-rows // (size * processes))
    starts = range(process * size, rounds * processes * size, processes * size)
    return [range(min(start, rows), min(start + size, rows)) for start in starts]


class Validating(SealedCheckpoints):
    """A trainer whose validation counts every row once, whatever the batches and the processes; a base of others."""

    _sizes: Iterator[int]  # of this process's batches to come
    _losses: list[tuple[Tensor, int]]  # of those that were, and their sizes

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
        self._sizes, self._losses = map(len, self._own_batches(len(dataloader.dataset))), []
        found = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        if self.accelerator.num_processes > 1:
            found.metrics[f"{metric_key_prefix}_loss"] = self._put_together()
        return found

    def _put_together(self) -> float:
        """Give this process what all have measured, and return their mean loss."""
        measured = self._metrics["eval"]
        own = {name: list(map(float, values)) for name, values in measured.items()}
        losses = [(loss.item(), size) for loss, size in self._losses]
        measured.clear()
        total, rows = 0.0, 0
        for of_one, losses_of_one in gather_object([(own, losses)]):
            for name, values in of_one.items():
                measured[name].extend(values)
            total += sum(loss * size for loss, size in losses_of_one if size)
            rows += sum(size for _, size in losses_of_one)
        return total / rows

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Trainer's. TRL averages what it measures over batches: each counts here as often as it has rows, so that
        the last one, which may have a single row, counts no more than that."""
        measured, size = self._metrics["eval"], next(self._sizes)
        before = {name: len(values) for name, values in measured.items()}
        with _alone(self.accelerator):
            found = super().prediction_step(model, inputs, *args, **kwargs)
        self._losses.append((found[0], size))
        for name, values in measured.items():
            start = before.get(name, 0)
            values[start:] = values[start:] * size
        return found


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
