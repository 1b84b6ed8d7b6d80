"""Stage `prepare`: data/raw into one file for each split, and data/rejected.jsonl."""

import os
from pathlib import Path

from rlhf_lib.common import environment, paths, running, schema
from rlhf_lib.common.files import write_json
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.data.prepare import language, prepare, sizes
from rlhf_lib.data.prepare.params import PrepareParams


def main() -> None:
    params = schema.read("prepare", PrepareParams)
    tokenizer = params.tokenizer_name_or_path
    environment.prepare(offline=tokenizer is None or os.path.isdir(tokenizer))
    try:
        language.check_languages(params.languages)
    except ValueError as error:
        raise ParamsError(f"{schema.PARAMS_FILE}: prepare.languages: {error}") from None
    report = prepare.prepare(Path(paths.RAW), Path(paths.SPLITS), Path(paths.REJECTED), params)
    write_json(paths.DATA_METRICS, report)
    print(f"prepare: {report['rows_kept']:,} of {report['rows_in']:,} rows kept (make data shows what became of them)")
    for remark in sizes.remarks(report):
        print(f"prepare: {remark}")


if __name__ == "__main__":
    running.run(main)
