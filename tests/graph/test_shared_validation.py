"""A validation in several processes is that of one, also where its rows do not fill the last batches."""

import pytest
import torch
from launched import launch
from project import of_one_stage
from validated import COUNTS, KINDS, validated

from rlhf_lib.training.validating import own_batches


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("rows", [0, 1, 4, 5, 8, 13])
def test_each_row_is_in_one_batch_of_one_process(rows, processes):
    shares = [own_batches(rows, 2, process, processes) for process in range(processes)]
    assert len({len(batches) for batches in shares}) == 1
    in_turn = [batch for batches in zip(*shares, strict=True) for batch in batches]
    assert [row for batch in in_turn for row in batch] == list(range(rows))
    sizes = [len(batch) for batch in in_turn]
    assert sorted(sizes, reverse=True) == sizes and max(sizes, default=0) <= 2  # as one process would read them


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "shards"), [(2, False), (3, False), (2, True)], ids=["two", "three", "sharded"])
def test_rows_that_cannot_be_shared_out_evenly_count_once(tiny, checkpoints, tmp_path, processes, shards):
    directory = of_one_stage(tmp_path / "several")
    how = {"config": "fsdp2" if shards else "cpu-2", "shards": shards, "processes": processes}
    done = launch(directory, "validated", tiny.policy, tiny.reward, directory, **how)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = validated(tiny, checkpoints)
    assert len(alone) == len(KINDS) * len(COUNTS)
    for rank in range(processes):
        found = torch.load(directory / f"{rank}.pt", weights_only=False)
        for place, expected in alone.items():
            assert found[place] == pytest.approx(expected, rel=1e-4, abs=1e-5), (rank, place)
            assert {"eval_loss"} < expected.keys()
