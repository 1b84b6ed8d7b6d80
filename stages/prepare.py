"""Stage `prepare`: data/raw into one file for each split."""

import json
from pathlib import Path
from typing import Any

from rlhf_lib import language, prepare
from rlhf_lib.params import schema
from rlhf_lib.params.prepare import PrepareParams
from rlhf_lib.rows import read_row_file, write_jsonl
from rlhf_lib.tracking import write_json

RAW = Path("data/raw")
OUT = Path("data/splits")
METRICS = Path("metrics/data.json")


def main() -> None:
    params = schema.read("prepare", PrepareParams)
    try:
        language.check_languages(params.languages)
    except ValueError as error:
        raise schema.ParamsError(f"{schema.PARAMS_FILE}: prepare.languages: {error}") from None
    rejected = read_counts(RAW / "rejected.json")
    done = prepare.prepare(read_row_file(RAW / "rows.jsonl"), params)
    if fault := prepare.empty_split(done, params):
        raise schema.ParamsError(f"{schema.PARAMS_FILE}: {fault}")
    for name, records in done.files.items():
        write_jsonl(OUT / f"{name}.jsonl", records)
    write_json(METRICS, prepare.report(done, params, rejected))


def read_counts(path: Path) -> dict[str, Any]:
    """What `load` rejected, by reason and source."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path}: cannot be read ({error}); run dvc repro load") from None


if __name__ == "__main__":
    main()
