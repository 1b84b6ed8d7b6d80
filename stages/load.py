"""Stage `load`: rows of the source into data/raw."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rlhf_lib import sources
from rlhf_lib.params import schema
from rlhf_lib.params.load import LoadParams
from rlhf_lib.rows import Row, write_jsonl
from rlhf_lib.tracking import write_json

OUT = Path("data/raw")


def main() -> None:
    params = schema.read("load", LoadParams)
    rejected: dict[str, Counter[str]] = {}

    def kept() -> Iterator[Row]:
        for item in sources.read_rows(params):
            if isinstance(item, sources.Rejected):
                rejected.setdefault(item.reason, Counter())[item.source] += 1
            else:
                yield item

    count = write_jsonl(OUT / "rows.jsonl", kept())
    write_json(OUT / "rejected.json", rejected)
    if not count:
        reasons = ", ".join(f"{reason} {by_source.total()}" for reason, by_source in sorted(rejected.items()))
        raise schema.ParamsError(
            f"{schema.PARAMS_FILE}: load.source: no usable row of {params.source} in "
            f"{params.path or 'the dataset'} (rejected: {reasons or 'none'}); check load.source and load.path"
        )


if __name__ == "__main__":
    main()
