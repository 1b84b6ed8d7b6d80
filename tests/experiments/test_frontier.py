"""The experiments of `dvc exp show --csv` as a table, and as a frontier with errors over seeds."""

import csv
import io
import shutil
import sys

import pytest
from project import DEMO

from rlhf_lib.common.files import write_json
from rlhf_lib.experiments import __main__ as experiments
from rlhf_lib.experiments import frontier

# As DVC prints it: the workspace and the commit, then the newest experiment first. Columns that nothing reads are cut.
TABLE = """\
Experiment,rev,typ,Created,parent,State,Executor,ppo.kl,eval.gold,eval.judge,eval.kl,eval.reward,eval.win_rate,policy,\
dpo.beta,dpo.seed,ppo.kl_coef,ppo.seed,ppo.learning_rate
,workspace,baseline,,,,,0.7,0.6,0.4,0.75,0.65,0.7,ppo,0.2,0,0.2,0,0.0003
,main,baseline,2026-01-21T09:25:34,,,,0.7,0.6,0.4,0.75,0.65,0.7,ppo,0.2,0,0.2,0,0.0003
sweep-dpo-beta0.1-seed0,aaaaaa1,branch_commit,2026-01-21T10:05:00,,Success,Dvc-task,0.7,0.5,,2.0,0.5,0.6,dpo,0.1,0,0.2,0,0.0003
sweep-ppo-kl0.8-seed0,aaaaaa2,branch_commit,2026-01-21T10:04:00,,Success,Dvc-task,0.9,0.55,0.1,0.25,0.25,0.6,ppo,0.2,0,0.8,0,0.0003
sweep-ppo-kl0.2-seed2,aaaaaa3,branch_commit,2026-01-21T10:03:00,,Success,Dvc-task,0.7,0.8,0.6,4.0,1.5,0.8,ppo,0.2,0,0.2,2,0.0003
sweep-ppo-kl0.2-seed1,aaaaaa4,branch_commit,2026-01-21T10:02:00,,Success,Dvc-task,0.7,0.7,0.4,3.0,1.0,0.8,ppo,0.2,0,0.2,1,0.0003
sweep-ppo-kl0.2-seed0,aaaaaa5,branch_base,2026-01-21T10:01:00,,Success,Dvc-task,0.7,0.6,0.2,2.0,0.5,0.7,ppo,0.2,0,0.2,0,0.0003
"""
PARAMS = ["policy", "ppo.kl_coef", "ppo.seed", "ppo.learning_rate", "dpo.beta", "dpo.seed"]


def rows(text=TABLE):
    return list(csv.DictReader(io.StringIO(text)))


def another(number=2, **changes):
    """An experiment of the table (by default sweep-dpo-beta0.1-seed0) with other cells."""
    return {**rows()[number], **{key.replace("__", "."): value for key, value in changes.items()}}


def left_out(row, prefix="sweep-"):
    """Why an experiment that comes after the table's was left out; None where it was taken."""
    taken, left = frontier.choose([*rows(), row], prefix, PARAMS)
    assert (row in taken) == (not left)
    return next(iter(left), None)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with params.yaml and the table, where the test runs."""
    shutil.copy(DEMO, tmp_path / "params.yaml")
    (tmp_path / "table.csv").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(module, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()
    return capsys.readouterr()


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_mean_and_error_over_seeds_are_those_computed_by_hand():
    ppo = frontier.points(rows()[2:])[0]
    assert (ppo.method, ppo.coefficient, ppo.seeds) == ("ppo", 0.2, 3)
    # standard deviations 1, 0.5, 0.2 and 0.1 over the root of three seeds
    by_hand = {"kl": (3.0, 0.57735), "reward": (1.0, 0.288675), "judge": (0.4, 0.11547), "gold": (0.7, 0.057735)}
    assert ppo.measured.keys() == by_hand.keys()
    for key, expected in by_hand.items():
        assert ppo.measured[key] == pytest.approx(expected, abs=1e-6)


def test_points_are_in_the_order_of_their_coefficients_and_one_seed_has_no_error():
    found = frontier.points(rows()[2:])
    assert [(p.method, p.coefficient, p.seeds) for p in found] == [("ppo", 0.2, 3), ("ppo", 0.8, 1), ("dpo", 0.1, 1)]
    assert found[1].measured["kl"] == (0.25, None) and found[1].measured["judge"] == (0.1, None)
    assert "judge" not in found[2].measured  # an empty cell


def test_a_value_that_one_seed_lacks_is_left_out_of_the_mean():
    (point,) = frontier.points([*rows()[4:6], another(6, eval__gold="")])
    assert point.seeds == 3 and "gold" not in point.measured and "reward" in point.measured


def test_a_finished_experiment_of_the_sweep_is_taken():
    assert left_out(another(dpo__seed="1")) is None
    assert left_out(another(dpo__beta="0.3", ppo__kl_coef="9", ppo__seed="9")) is None  # dpo does not read ppo's


@pytest.mark.parametrize("state", ["Running", "Queued", "Failed"])
def test_an_unfinished_experiment_is_left_out_though_dvc_shows_the_numbers_of_its_commit(state):
    assert left_out(another(dpo__seed="1", State=state)) == state.lower()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Experiment": "lora"}, "name does not start with sweep-"),
        ({"ppo__learning_rate": "0.001"}, "other params than the commit's: ppo.learning_rate"),
        ({"eval__reward": ""}, "no eval.kl and eval.reward"),
        ({"eval__kl": "-"}, "no eval.kl and eval.reward"),
        ({"policy": "sft"}, "policy sft has no coefficient"),
        ({"dpo__seed": "0", "Experiment": "sweep-again"}, "the same run as sweep-dpo-beta0.1-seed0"),
    ],
)
def test_what_does_not_belong_to_the_sweep_is_left_out_with_the_reason(changes, reason):
    assert reason in left_out(another(**{"dpo__seed": "1", **changes}))


def test_experiments_of_an_older_commit_are_left_out():
    older = [another(1, rev="1234567"), another(dpo__seed="1", Experiment="sweep-old")]
    taken, left = frontier.choose([*rows(), *older], "sweep-", PARAMS)
    assert len(taken) == 5 and left == {"it starts from another commit": ["sweep-old"]}


def test_the_params_that_may_not_differ_are_all_others_of_params_yaml(project):
    names = set(frontier.param_columns())
    assert names > frontier.VARIED and {"ppo.learning_rate", "sft.seed", "evaluate.temperatures"} <= names


def test_the_command_prints_and_writes_the_table_and_the_picture(project, monkeypatch, capsys):
    out = run(frontier, monkeypatch, capsys, "table.csv").out
    assert cells(out.splitlines()[0]) == ["method", "coefficient", "seeds", "kl", "reward", "judge", "gold"]
    lines = [cells(line) for line in out.splitlines()[2:5]]
    assert lines[0][1:] == ["0.2", "3", "3.000 ± 0.577", "1.000 ± 0.289", "0.400 ± 0.115", "0.700 ± 0.058"]
    assert lines[2][1:] == ["0.1", "1", "2.000", "0.500", "", "0.500"]
    text = (project / "dvc_plots/frontier.tsv").read_text()
    written = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    errors = [(row["method"], row["coefficient"], row["kl_se"]) for row in written]
    assert errors == [("ppo", "0.2", "0.57735"), ("ppo", "0.8", ""), ("dpo", "0.1", "")]
    assert (project / "dvc_plots/frontier.png").read_bytes().startswith(b"\x89PNG")


def test_the_sft_model_stands_at_no_kl_and_the_best_of_n_at_its_bound(project):
    sft = {"reward": 0.0, "reward_se": 0.1, "judge": -0.1, "kl": 0.01}
    write_json("metrics/eval/sft.json", {"t1": sft, "greedy": {"reward": 5.0}})
    best = {f"n{n}": {"n": n, "kl_bound": kl, "reward": reward} for n, kl, reward in ((16, 1.8, 0.9), (2, 0.19, 0.3))}
    write_json("metrics/eval/best_of_n.json", best)
    found = list(frontier.landmarks("t1"))
    assert found[0].measured == {"kl": (0.0, None), "reward": (0.0, None), "judge": (-0.1, None)}
    assert [(p.method, p.coefficient, p.measured["kl"][0]) for p in found[1:]] == [
        ("best_of_n", 2, 0.19),
        ("best_of_n", 16, 1.8),
    ]
    assert "best of n" in frontier.markdown(found)


def test_a_best_of_n_that_was_left_out_is_no_landmark(project):
    write_json("metrics/eval/best_of_n.json", {"left_out": "no source gives preferences"})
    assert "best_of_n" not in {point.method for point in frontier.landmarks("t1")}


def test_the_drawing_has_a_bar_for_each_error_and_none_for_a_single_seed(project):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    frontier._draw_panel(frontier.points(rows()[2:]), None, "judge", ax)
    (drawn,) = ax.containers  # DPO has no judge's value
    points, _, (_, y_bars) = drawn
    assert points.get_xdata() == pytest.approx([3.0, 0.25]) and points.get_ydata() == pytest.approx([0.4, 0.1])
    with_error, without = y_bars.get_segments()
    assert with_error[:, 1].tolist() == pytest.approx([0.4 - 0.11547, 0.4 + 0.11547], abs=1e-6)
    assert without.size == 0 or (without != without).any()
    assert [text.get_text() for text in ax.texts] == ["0.2", "0.8"]


def test_without_a_sweep_the_command_says_how_to_make_one(project, monkeypatch, capsys):
    # where there is no experiment at all, DVC leaves the columns State and Executor out
    few = "Experiment,rev,typ,Created,parent,eval.kl,policy\n,workspace,baseline,,,0.7,ppo\n,main,baseline,,,0.7,ppo\n"
    (project / "table.csv").write_text(few)
    assert len(experiments.table(experiments.read("table.csv")).splitlines()) == 4
    with pytest.raises(SystemExit, match=r"no finished experiment .*make sweep"):
        run(frontier, monkeypatch, capsys, "table.csv")


def test_what_was_left_out_is_said(project, monkeypatch, capsys):
    (project / "table.csv").write_text(
        TABLE.replace("sweep-dpo-beta0.1", "mine").replace(
            "0.0003\nsweep-ppo-kl0.2-seed1", "0.1\nsweep-ppo-kl0.2-seed1"
        )
    )
    said = run(frontier, monkeypatch, capsys, "table.csv")
    assert "left out: mine-seed0: name does not start with sweep-" in said.err
    assert "left out: sweep-ppo-kl0.2-seed2: other params than the commit's: ppo.learning_rate" in said.err
    assert "mine" not in said.out


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("a,b\n1,2\n", "no column Experiment"), ("", "no column Experiment"), (None, "cannot be read")],
)
def test_a_file_that_is_no_table_is_told_in_one_line(project, content, complaint):
    if content is not None:
        (project / "other.csv").write_text(content)
    with pytest.raises(SystemExit, match=f"other.csv: {complaint}") as error:
        experiments.read("other.csv")
    assert "\n" not in str(error.value)


def test_a_table_comes_from_standard_input_or_from_dvc(project, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(TABLE))
    assert experiments.read("-") == rows()
    dvc = project / "bin/dvc"
    dvc.parent.mkdir()
    dvc.write_text('#!/bin/sh\n[ "$*" = "exp show --csv" ] && cat table.csv\n')
    dvc.chmod(0o755)
    monkeypatch.setenv("PATH", str(dvc.parent), prepend=":")
    assert experiments.read(None) == rows()
    dvc.write_text("#!/bin/sh\necho ERROR: not here >&2; exit 1\n")
    with pytest.raises(SystemExit, match="failed: ERROR: not here"):
        experiments.read(None)
    monkeypatch.setenv("PATH", str(project))
    with pytest.raises(SystemExit, match="dvc: not found; source"):
        experiments.read(None)


def test_the_list_of_experiments_fits_into_120_columns(project, monkeypatch, capsys):
    many = [another(Experiment=f"sweep-dpo-beta0.05-seed{i}", eval__judge="-1.234567") for i in range(10)]
    many.append(another(Experiment="sweep-ppo-kl0.05-seed0", policy="ppo", dpo__beta="0.2", State="Running"))
    lines = experiments.table([*rows()[:2], *many]).splitlines()
    assert max(map(len, lines)) <= 120 and len(lines) == 2 + 2 + 11
    assert cells(lines[2])[:5] == ["main", "ppo", "0.2", "", "0"]
    assert cells(lines[4])[:7] == ["sweep-dpo-beta0.05-seed0", "dpo", "", "0.1", "0", "0.500", "-1.235"]
    assert cells(lines[-1])[5:] == ["running", "", "", "", "", ""]  # and not the numbers of the commit
