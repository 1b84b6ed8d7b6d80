"""Take a model away.

python -m rlhf_lib.export write models/dpo                into dist/dpo, with a model card
python -m rlhf_lib.export push dist/dpo owner/name        an export, to the hub
python -m rlhf_lib.export serve models/dpo                on http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlhf_lib.common import environment
from rlhf_lib.export.options import DTYPES, UNKNOWN, license_of


def write(arguments: argparse.Namespace) -> None:
    """The verb `write`."""
    license = license_of(arguments.license, arguments.license_name, arguments.license_link)
    environment.prepare()
    with environment.importing():
        from rlhf_lib.export.write import write as export

    export(arguments.model, Path(arguments.out), arguments.dtype, license, arguments.llama_cpp)


def push(arguments: argparse.Namespace) -> None:
    """The verb `push`."""
    environment.prepare(offline=False)
    from rlhf_lib.export import hub

    print(hub.push(arguments.folder, arguments.repo_id, arguments.public, arguments.message))


def serve(arguments: argparse.Namespace) -> None:
    """The verb `serve`."""
    environment.prepare()
    from rlhf_lib.export import serve as server

    server.check(arguments.port)
    server.run(arguments.model, arguments.port)


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.export", description=__doc__, formatter_class=form)
    verbs = parser.add_subparsers(required=True, metavar="write | push | serve")
    one = verbs.add_parser("write", help="export a model's directory")
    one.set_defaults(run=write)
    one.add_argument("model", help="a directory, such as models/dpo")
    one.add_argument("--dtype", choices=DTYPES, default="bf16", help="of the weights; bf16")
    one.add_argument("--out", default="dist", help="the folder in which the export's own will be; dist")
    one.add_argument("--license", default=UNKNOWN, help="for the card: an identifier of the hub; unknown")
    one.add_argument("--license-name", help="of a license that has no identifier (--license other)")
    one.add_argument("--license-link", help="to its text")
    one.add_argument(
        "--llama-cpp", metavar="FOLDER", help="a checkout of llama.cpp, for the GGUF; else LLAMA_CPP or PATH"
    )
    two = verbs.add_parser("push", help="upload an export to the hub, privately, with the token in HF_TOKEN")
    two.set_defaults(run=push)
    two.add_argument("folder", help="an export, such as dist/dpo")
    two.add_argument("repo_id", metavar="owner/name")
    two.add_argument("--public", action="store_true", help="to be seen by everybody")
    two.add_argument("--message", default="Upload model", help="of the commit")
    three = verbs.add_parser("serve", help="answer requests in OpenAI's form on loopback (transformers serve)")
    three.set_defaults(run=serve)
    three.add_argument("model", help="a directory, such as models/dpo or dist/dpo")
    three.add_argument("--port", type=int, default=8000)
    return parser.parse_args(given)


def main() -> None:
    """The command line."""
    arguments = parse()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
