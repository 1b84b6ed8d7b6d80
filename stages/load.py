"""Stage `load`: rows of the sources into data/raw."""

from pathlib import Path

from rlhf_lib.common import environment, paths, running, schema
from rlhf_lib.data.load.load import load
from rlhf_lib.data.load.params import LoadParams


def main() -> None:
    params = schema.read("load", LoadParams)
    environment.prepare(offline=all(source.path or source.reader == "demo" for source in params.sources))
    load(Path(paths.RAW), params)


if __name__ == "__main__":
    running.run(main)
