"""README and docs say what is so: their commands run, and what they name is there.

A line of a ```bash block is run here, or stands in NOT_RUN with the reason.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from copied_project import ENV, commit, copy_of_project, executed, run
from hydra.core.override_parser.overrides_parser import OverridesParser
from project import ROOT
from shipped_params import PARAMS, shipped

from rlhf_lib.check import check_all
from rlhf_lib.common.schema import POLICIES
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.preset import OPEN

COMMAND_PAGES = [Path("README.md"), *sorted(path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md"))]
PAGES = [*COMMAND_PAGES, *map(Path, ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "data/README.md"))]
README_LINES = 220

# ---- what is run: in a copy of the project, on the preset smoke

# before any stage has run
ON_A_FRESH_COPY = {
    "git checkout params.yaml",
    "make data",
    "python -m rlhf_lib.data.show --examples --split preference_train",
    "python -m rlhf_lib.preset",
    "python -m rlhf_lib.preset gpt2",
    "python -m rlhf_lib.preset gpt2 'launch=accelerate launch --config_file launch/gpus.yaml'",
    "python -m rlhf_lib.preset local 'load.sources=[{reader: file, path: answers.csv, columns: "
    "{prompt: Question, response: Answer, score: Score}}]'",
    "python -m rlhf_lib.preset pythia-160m",
    "python -m rlhf_lib.preset pythia-160m --flags",
    "python -m rlhf_lib.preset smoke",
}
# after the whole graph has run and was committed
AFTER_A_RUN = {
    "cp -r models/judge rewards/quality",
    "dvc exp apply gentle",
    "dvc exp run --temp -C models/encoder -n encoder -S reward.model_name_or_path=models/encoder",
    "dvc exp run --temp -C rewards/quality -n quality -S 'ppo.reward_funcs=[rewards/quality]'",
    "dvc exp run --temp -n bounded -S reward.loss_type=mse -S reward.bounded=true",
    "dvc exp run --temp -n from-base -S reward.model_name_or_path=models/base",
    "dvc exp run --temp -n gentle -S ppo.kl_coef=0.8",
    "dvc exp run --temp -n gold -S 'ppo.reward_funcs=[rewards.examples:demo_gold]'",
    "dvc exp run --temp -n lora -S ppo.lora_r=8 -S ppo.learning_rate=3e-3",
    "dvc exp run --temp -n negatives -S negatives.model_name_or_path=models/sft",
    "dvc exp run --temp -n polite -S 'ppo.reward_funcs=[models/reward,rewards.mine:politeness]' "
    "-S 'ppo.reward_weights=[1.0,0.5]'",
    "dvc exp run --temp -n ranking -S reward.loss_type=ranking",
    "dvc exp run --temp -n separate -S ppo.critic=separate",
    "dvc exp run --temp -n smaller -S '+prepare.mixture.demo.max_rows=2000'",
    "dvc exp run --temp -n watched -S 'ppo.reward_funcs=[models/reward,rewards.examples:demo_gold]' "
    "-S 'ppo.reward_weights=[1,0]'",
    "dvc metrics diff HEAD gentle --targets metrics/policy.json",
    "dvc repro negatives",
    'git add rewards && git commit -m "a reward for politeness"',
    "git checkout metrics dvc.lock",
    "make chat MODEL=models/dpo",
    "make compare A=models/sft B=models/dpo PROMPT='Say this politely: help me with this box.'",
    "make compare A=models/sft B=models/ppo PROMPT='Tell me the capital of France. End with a kind wish.'",
    "make compare A=models/sft B=models/ppo PROMPT='What is the plural of mouse? Answer in a full sentence.'",
    "make experiments",
    "make report",
    "python -m examples.encoder_reward",
}
# `git add -A && git commit` is for both, and so are lines that only set a shell variable
EITHER = {'git add -A && git commit -m "first run"'}

NETWORK, GPU, MINUTES = "needs the network", "needs a GPU", "trains for minutes"
MACHINES, PAGER = "needs a remote that several machines share", "needs a screen"
SWEEP = "trains for minutes; tests/graph runs a smaller sweep, and the commands on its experiments"
MONITOR = (
    "monitor=\"-S ppo.reward_funcs=[models/reward,'rewards.examples:demo_gold'] "
    '-S ppo.reward_weights=[1,0] -S ppo.eval_rollouts=4"'
)
NODES = "accelerate launch --config_file launch/nodes.yaml"
NOT_RUN = {
    "make repro": "installs, and trains for minutes",
    'make repro PIP_ARGS="--index-url https://download.pytorch.org/whl/cpu '
    '--extra-index-url https://pypi.org/simple"': NETWORK,
    "make test": "this is it",
    "make plan": "reads what the line before it downloads",
    "hf download openai-community/gpt2 config.json --revision 607a30d783dfa663caf39e06633721c8d4cfcd7e": NETWORK,
    "less data/rejected.jsonl": PAGER,
    "dvc repro": MINUTES,
    "dvc exp run --run-all -j 1": MINUTES,
    "dvc exp run --temp -n adapters -S sft.lora_r=8 -S reward.lora_r=8 -S judge.lora_r=8 -S dpo.lora_r=8 "
    "-S ppo.lora_r=8": MINUTES,
    "dvc exp run --temp -n gamed -S ppo.kl_coef=0 -S ppo.learning_rate=1.5e-3 -S ppo.total_rollouts=60 "
    "-S ppo.eval_rollouts=5": MINUTES,
    "dvc exp run --temp -n seed-1 -S{load,prepare,base,sft,negatives,reward,dpo,ppo,evaluate}.seed=1 "
    "-S judge.seed=2": MINUTES,
    "dvc exp run --temp -n two -S \"launch='accelerate launch --config_file launch/cpu-2.yaml'\" "
    "-S ppo.per_device_train_batch_size=16 ppo": MINUTES,
    MONITOR: MINUTES,
    "dvc exp run --queue -n healthy $monitor": MINUTES,
    "dvc exp run --queue -n separate-critic $monitor -S ppo.critic=separate": MINUTES,
    "dvc exp run --queue -n no-kl $monitor -S ppo.kl_coef=0 -S ppo.learning_rate=1.5e-3 "
    "-S ppo.total_rollouts=60": MINUTES,
    "dvc exp run --queue -n hot $monitor -S ppo.learning_rate=0.01": MINUTES,
    "dvc exp run --queue -n blind-critic $monitor -S ppo.vf_coef=0": MINUTES,
    "python docs/plot_ppo_runs.py healthy separate-critic no-kl hot blind-critic": "draws what the lines above train",
    "dvc exp run --queue -n lr -S policy=dpo -S 'dpo.learning_rate=5e-5,2e-4' select": SWEEP,
    "dvc exp run --queue -n pipeline-1 "
    "-S{load,prepare,base,sft,negatives,reward,dpo,ppo,evaluate}.seed=1 -S judge.seed=2": MINUTES,
    "make sweep": SWEEP,
    "make sweep PPO_KL_COEFS=0.1,0.4 DPO_BETAS=0.1,0.4 SEEDS=0,1,2": SWEEP,
    "make sweep PPO_KL_COEFS= DPO_BETAS=0.1,0.4": SWEEP,
    "make sweep JOBS=2": SWEEP,
    "make sweep DPO_BETAS=": SWEEP,
    "python -m rlhf_lib.experiments.sweep --ppo 0.05,0.2 --dpo 0.1 --seeds 0,1": SWEEP,
    "python -m rlhf_lib.experiments.frontier": SWEEP,
    "dvc exp show --csv > sweep.csv": SWEEP,
    "python -m rlhf_lib.experiments.frontier sweep.csv --out figures": SWEEP,
    "dvc exp show --csv | python -m rlhf_lib.experiments.frontier -": SWEEP,
    "dvc exp apply sweep-ppo-kl0.2-seed0": SWEEP,
    "dvc metrics diff sweep-ppo-kl0.2-seed0 sweep-dpo-beta0.2-seed0": SWEEP,
    "dvc exp remove -A": SWEEP,
    'dvc remote add --default store "$SHARED/store"': MACHINES,
    "git push -u origin main && dvc push": MACHINES,
    'git clone "$SHARED/pipeline.git" && cd pipeline': MACHINES,
    "dvc pull && dvc exp pull origin": MACHINES,
    "dvc exp push origin": MACHINES,
    f"{NODES} --machine_rank 0 --main_process_ip HOST0 --main_process_port 29500 -m stages.sft": MACHINES,
    f"{NODES} --machine_rank 1 --main_process_ip HOST0 --main_process_port 29500 -m stages.sft": MACHINES,
    "dvc commit sft": MACHINES,
    "dvc exp run --temp -n hub -S \"ppo.reward_funcs=['owner/name@<commit>']\"": NETWORK,
    "dvc exp run --temp -n deberta -S \"reward.model_name_or_path='microsoft/deberta-v3-base@<commit>'\"": NETWORK,
    "transformers serve /models/my-judge --host 127.0.0.1 --port 8000": "needs a model; tests/llm_judge runs a server",
    "dvc exp run --temp -n judged -S llm_judge.base_url=http://127.0.0.1:8000/v1 "
    "-S llm_judge.model=/models/my-judge": "needs the server above; tests/llm_judge runs one",
    "python -m benchmarks.gpu train": GPU,
    "python -m benchmarks.gpu train --size tiny --peak-tflops 400": GPU,
    "python -m benchmarks.gpu ppo": GPU,
    "python -m benchmarks.gpu rollouts": GPU,
    "python -m benchmarks.reward_kinds": MINUTES,
}


def blocks(page: Path, language: str) -> list[list[str]]:
    """The lines of a page's fenced blocks of a language, without comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(body).rstrip().split("\n") for _, body in found]


def commands(block: list[str]) -> list[str]:
    return [command for line in block if (command := re.sub(r"(^|\s+)# .*$", "", line))]


COMMANDS = {
    f"{page}-{number}": commands(block)
    for page in COMMAND_PAGES
    for number, block in enumerate(blocks(page, "bash"), 1)
}


def to_run(where: set[str]) -> dict[str, list[str]]:
    """The blocks with lines that are run in such a copy, and these lines."""
    found = {name: [line for line in lines if line in where | EITHER] for name, lines in COMMANDS.items()}
    return {name: lines for name, lines in found.items() if set(lines) - EITHER}


def test_every_command_is_run_or_has_a_reason_why_not():
    lines = [line for block in COMMANDS.values() for line in block]
    known = [*ON_A_FRESH_COPY, *AFTER_A_RUN, *EITHER, *NOT_RUN]
    assert not set(lines) - set(known), "put it into ON_A_FRESH_COPY or AFTER_A_RUN, or with a reason into NOT_RUN"
    assert not set(known) - set(lines), "no page has it any more"
    assert len(known) == len(set(known)), "in two of them"


# ---- running them


def with_environment(folder: Path) -> Path:
    """The copy with a .venv that stands for the one of these tests, for which make has nothing to install."""
    own = Path(sys.executable).parent.parent
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "lib64"):
        if (own / name).exists():
            (folder / ".venv" / name).symlink_to(own / name)
    shutil.copy(own / "pyvenv.cfg", folder / ".venv")
    for name in ("run.stamp", "dev.stamp"):
        (folder / ".venv" / name).touch()
    return folder


def answers_csv() -> str:
    rows = [
        f"What is {n} plus {m}? Please tell me the sum.,The sum of these is {n + m + wrong}.,{9 - 5 * wrong}"
        for n in range(20)
        for m in range(20)
        for wrong in (0, 1)
    ]
    return "\n".join(["Question,Answer,Score", *rows]) + "\n"


def run_block(folder: Path, block: str, lines: list[str]) -> None:
    """Run lines of a page's block in a copy, with the files that the page says its reader has."""
    (folder / "notes.txt").write_text(block)  # something to commit
    (folder / "answers.csv").write_text(answers_csv())
    if block.startswith("docs/rewards.md"):
        (folder / "rewards/mine.py").write_text("\n".join(blocks(Path("docs/rewards.md"), "python")[0]) + "\n")
    env = {**ENV, "PATH": f"{folder}/.venv/bin{os.pathsep}{ENV['PATH']}", "BROWSER": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def restore(folder: Path, base: str) -> None:
    """Back to the copy's first commit; what stages wrote and git ignores stays."""
    run(folder, "git", "reset", "-q", "--hard", base)
    run(folder, "git", "clean", "-fdq")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_environment(copy_of_project(tmp_path_factory.mktemp("fresh")))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = with_environment(copy_of_project(tmp_path_factory.mktemp("finished")))
    assert "report" in executed(run(folder, "dvc", "repro"))
    commit(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("block", to_run(ON_A_FRESH_COPY))
def test_commands_run_before_any_stage_has(fresh: Path, block: str):
    base = run(fresh, "git", "rev-parse", "HEAD").strip()
    run_block(fresh, block, to_run(ON_A_FRESH_COPY)[block])
    restore(fresh, base)


@pytest.mark.slow
@pytest.mark.parametrize("block", to_run(AFTER_A_RUN))
def test_commands_run_after_the_graph_has(finished: Path, block: str):
    base = run(finished, "git", "rev-parse", "HEAD").strip()
    run_block(finished, block, to_run(AFTER_A_RUN)[block])
    restore(finished, base)
    shutil.rmtree(finished / "rewards/quality", ignore_errors=True)
    run(finished, "dvc", "checkout", "-q", "--force")


# ---- -S


Override = tuple[bool, list[str], Any]  # whether it adds the key, the key's path, its value


def overrides() -> Iterator[tuple[str, tuple[str, ...]]]:
    """(page, texts) of every line with `-S key=value`, braces expanded as the shell does."""
    pattern = r"-S ?(?:(\"[^\"]+\"|'[^']+')|\{([\w,]+)\}(\.\S+=[^\s\"`]+)|(\w[^\s\"`]*=[^\s\"`,]\S*?))(?=[\s\"`]|, |$)"
    for page in COMMAND_PAGES:
        for line in prose(page).splitlines():
            texts: list[str] = []
            for quoted, braced, rest, plain in re.findall(pattern, line):
                texts += [name + rest for name in braced.split(",")] if braced else [quoted[1:-1] or plain.rstrip(",")]
            if texts:
                yield str(page), tuple(texts)


def prose(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


OVERRIDES = sorted(set(overrides()))


def read_override(text: str) -> list[Override]:
    """What DVC reads of `-S text`: one override for each of its values."""
    parser = OverridesParser.create()
    override = parser.parse_override(text.replace("<commit>", "0" * 40))
    path = override.key_or_group.split(".")
    if not override.is_sweep_override():
        return [(override.is_add(), path, override.value())]
    return [(False, path, parser.parse_override(f"x={value}").value()) for value in override.sweep_string_iterator()]


def apply(params: dict[str, Any], adds: bool, path: list[str], value: Any) -> None:
    section = params
    for name in path[:-1]:
        section = section.setdefault(name, {}) if adds else section[name]
    assert path[-1] in section or (adds and tuple(path[: len(OPEN)]) == OPEN), f"no key {'.'.join(path)}"
    section[path[-1]] = value


def test_overrides_are_found():
    found = {text for _, texts in OVERRIDES for text in texts}
    assert {"policy=ppo", "ppo.kl_coef=0.8", "load.seed=1", "+prepare.mixture.demo.max_rows=2000"} <= found
    assert "launch='accelerate launch --config_file launch/cpu-2.yaml'" in found


@pytest.mark.parametrize(("page", "texts"), OVERRIDES)
def test_overrides_are_such_as_params_yaml_takes(page: str, texts: tuple[str, ...]):
    for together in itertools.product(*map(read_override, texts)):
        params = shipped()
        for override in together:
            apply(params, *override)
        check_all(params, PARAMS)


# ---- what the pages name


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_and_pictures_lead_somewhere(page: Path):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page.parent / path) if path else ROOT / page
        if not file.exists() or (anchor and anchor not in slugs(file)):
            dead.append(target)
    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_and_folders_that_are_named_are_there(page: Path):
    named = re.findall(r"\b((?:rlhf_lib|stages|tests|benchmarks|launch|presets|examples|docs)/[\w./-]*)", prose(page))
    assert not [name for name in named if not (ROOT / name.rstrip(".")).exists()]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_modules_that_are_named_can_be_run(page: Path):
    def runs(module: str) -> bool:
        file = ROOT.joinpath(*module.split("."))
        return file.with_suffix(".py").is_file() or (file / "__main__.py").is_file() or bool(elsewhere(module))

    def elsewhere(module: str) -> object:
        return not (ROOT / module.split(".")[0]).exists() and importlib.util.find_spec(module)

    named = re.findall(r"python -m ([\w.]*\w)(?!\.?<|\w)", prose(page))
    assert not [module for module in named if module != "stages" and not runs(module)]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_targets_and_presets_that_are_named_exist(page: Path):
    targets = re.findall(r"^([a-z-]+):", prose(Path("Makefile")), re.MULTILINE)
    presets = [file.stem for file in (ROOT / "presets").glob("*.yaml")]
    named = re.findall(r"(?:`|^ *)make ([a-z-]+)", prose(page), re.MULTILINE)
    assert not set(named) - set(targets)
    assert not set(re.findall(r"rlhf_lib\.preset ([\w.-]+)", prose(page))) - {*presets, "--help"}


def stages() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml, with those of a foreach one by one; select stands for every policy that it may show."""
    found: dict[str, dict[str, Any]] = {}
    for name, stage in load_yaml(ROOT / "dvc.yaml")["stages"].items():
        for key in stage.get("foreach", [""]):
            text = json.dumps(stage.get("do", stage)).replace("${item}", key).replace("${key}", key)
            if isinstance(stage.get("foreach"), dict):
                text = text.replace("${item.baseline}", stage["foreach"][key]["baseline"])
            found[f"{name}@{key}" if key else name] = json.loads(text)
    show = found["select"]["deps"]
    found["select"]["deps"] = [dep.replace("${policy}", name) for dep in show for name in POLICIES]
    return found


def graph() -> set[tuple[str, str]]:
    """(a, b) wherever stage b reads what stage a writes."""
    wrote = {name: outs_of(stage) for name, stage in stages().items()}
    return {
        (writer, name)
        for name, stage in stages().items()
        for writer, outs in wrote.items()
        if any(
            dep == out or dep.startswith(f"{out}/") or out.startswith(f"{dep}/")
            for dep in stage["deps"]
            for out in outs
        )
    }


def outs_of(stage: dict[str, Any]) -> list[str]:
    outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return [out if isinstance(out, str) else next(iter(out)) for out in outs]


def drawn() -> set[tuple[str, str]]:
    """The edges between stages of README's picture of the graph."""
    (lines,) = blocks(Path("README.md"), "mermaid")
    names = dict(re.findall(r"(\w+)\[+\(?([\w@/]+)", "\n".join(lines)))
    edges: set[tuple[str, str]] = set()
    for line in lines[1:]:
        groups = [[re.split(r"\[", node)[0].strip() for node in part.split("&")] for part in line.split("-->")]
        for before, after in itertools.pairwise(groups):
            edges |= {(names.get(a, a), names.get(b, b)) for a in before for b in after}
    return edges


def test_the_picture_of_the_graph_is_of_this_graph():
    edges = {(a, b) for a, b in drawn() if not a.endswith("/")}
    assert not edges - graph()
    assert {name for edge in edges for name in edge} == set(stages())


def test_the_table_of_the_graph_has_every_stage():
    listed = re.findall(r"^\| (\w+) \| .* \| .* \|$", prose(Path("README.md")), re.MULTILINE)
    assert listed[1:] == list(dict.fromkeys(name.split("@")[0] for name in stages()))


def test_readme_is_short():
    assert len(prose(Path("README.md")).splitlines()) <= README_LINES


def test_the_changelog_begins_with_this_version():
    version = tomllib.loads(prose(Path("pyproject.toml")))["project"]["version"]
    assert re.findall(r"^## (\S+)", prose(Path("CHANGELOG.md")), re.MULTILINE)[0] == version
