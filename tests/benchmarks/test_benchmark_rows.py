"""The synthetic UltraFeedback of the data benchmark."""

import json
from collections import Counter

from benchmarks.data import ultrafeedback
from rlhf_lib.common.rows import normalise
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.reader import Rejected
from rlhf_lib.data.load.readers import READERS


def written(tmp_path, rows, seed=0):
    ultrafeedback.write(tmp_path / "rows.jsonl", rows, seed)
    return (tmp_path / "rows.jsonl").read_bytes()


def test_its_records_are_in_upstreams_schema_and_have_its_faults(tmp_path):
    lines = written(tmp_path, 600).splitlines()
    source = SourceParams(reader="ultrafeedback")
    items = [item for line in lines for item in READERS["ultrafeedback"].parse(json.loads(line), source)]
    rows = [item for item in items if not isinstance(item, Rejected)]
    reasons = Counter(item.reason for item in items if isinstance(item, Rejected))
    assert len(rows) == len(lines) == 600
    assert reasons["response_empty"] and reasons["response_no_score"] and "malformed" not in reasons
    assert len({row["source"] for row in rows}) == 6
    assert len({normalise(row["prompt"]) for row in rows}) < 600
    assert 12_000 < sum(map(len, lines)) / len(lines) < 20_000


def test_the_same_seed_gives_the_same_file_and_a_short_file_is_the_beginning_of_a_long_one(tmp_path):
    long = written(tmp_path, 30)
    assert written(tmp_path, 30) == long and long.startswith(written(tmp_path, 10))
    assert written(tmp_path, 30, seed=1) != long
