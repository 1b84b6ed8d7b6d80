"""params.yaml checked as a whole, and the hashes of the local files that it names -> data/inputs."""

from rlhf_lib.check.__main__ import tell_once
from rlhf_lib.check.sections import check_all
from rlhf_lib.common import environment, running
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.inputs import manifest
from rlhf_lib.training import report_to


def main() -> None:
    environment.prepare()
    report_to.check()
    params = load_yaml(PARAMS_FILE)
    check_all(params)
    tell_once(params, manifest.write(params))


if __name__ == "__main__":
    running.run(main)
