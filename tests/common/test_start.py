"""What every command begins with: libraries that files hide, streams, and ends that are told in one line."""

import py_compile
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

from rlhf_lib.common import start


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(path for path in sys.path if path != str(ROOT))])
    return tmp_path


def package(folder, name):
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()


@pytest.mark.parametrize("name", ["token.py", "yaml.py", "numpy.py", "psutil.py"])
def test_a_file_that_hides_a_library_is_told(here, name):
    (here / name).touch()
    library = name.removesuffix(".py")
    said = f"{name}: in the project's folder, hides the library {library} from Python; rename it, or move it"
    assert start.shadow() == said


def test_a_package_that_hides_a_library_is_told(here):
    package(here, "datasets")
    assert start.shadow().startswith("datasets: in the project's folder, hides the library datasets")


def test_what_hides_nothing_is_not(here):
    """A folder without __init__.py gives way to the library; the project's own folders, and names of nobody."""
    (here / "datasets").mkdir()
    (here / "my_rewards.py").touch()
    (here / "token.txt").touch()
    package(here, "examples")
    assert start.shadow() is None


def test_nothing_is_hidden_where_python_looks_elsewhere_first(here, monkeypatch):
    (here / "token.py").touch()
    monkeypatch.setattr(sys, "path", ["/usr/bin", *sys.path])
    assert start.shadow() is None


def command(text, end="", **options):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c 'from rlhf_lib.common import start; start.prepare(); {text}' {end}"],
        env={"PYTHONPATH": str(ROOT), **options},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr.strip()


def test_what_an_encoding_has_no_sign_for_is_written_as_its_number():
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    assert command('print("caf\\u00e9")', **ascii_only) == (0, "caf\\xe9\n", "")


def test_closed_streams_are_not_those_of_the_next_file(tmp_path):
    file = tmp_path / "file"
    text = f'import os; f = open("{file}", "w"); print("x"); os.write(1, b"y"); f.write("z")'
    assert command(text, "<&- >&- 2>&-")[0] == 0
    assert Path(file).read_text() == "z"


@pytest.mark.parametrize(
    ("text", "end", "told"),
    [
        ("raise KeyboardInterrupt", "", (130, "interrupted")),
        ('print("x")', "> /dev/full", (1, "the disk is full, or what the output goes to; free some space")),
        ('open("/dev/full", "w").write("x" * 100_000)', "", (1, "the disk is full, or what the output goes to; free")),
        (
            'raise PermissionError(13, "Permission denied", "x")',
            "",
            (1, "x: Permission denied; give this user the right to read and write there"),
        ),
    ],
)
def test_ends_that_are_no_fault_of_the_code_are_one_line(text, end, told):
    code, _, errors = command(text, end)
    assert code == told[0] and errors.startswith(told[1]) and len(errors.splitlines()) == 1


def test_a_compiled_module_that_was_cut_short_goes_and_is_told(tmp_path):
    (tmp_path / "cut.py").write_text("words = ['one', 'two']\n")
    compiled = Path(py_compile.compile(str(tmp_path / "cut.py")))
    compiled.write_bytes(compiled.read_bytes()[:60])
    text = f'import os, sys; os.chdir("{tmp_path}"); sys.path.append("{tmp_path}"); import cut; print(cut.words[1])'
    code, _, errors = command(text)
    told = "Python's compiled module was cut short, on a full disk say; run it again"
    assert (code, errors) == (1, f"{compiled.relative_to(tmp_path)}: {told}")
    assert not compiled.exists() and command(text) == (0, "two\n", "")


def test_an_output_that_nobody_reads_is_one_line():
    _, _, errors = command('import time; time.sleep(0.2); print("x")', "| true")
    assert errors == "nobody reads the output any more; run it again without the pipe"


def test_other_errors_keep_their_traceback():
    code, _, errors = command("1 / 0")
    assert code == 1 and errors.startswith("Traceback") and errors.endswith("ZeroDivisionError: division by zero")


def test_warnings_as_errors_keep_no_command_from_starting():
    text = 'import warnings; warnings.warn("old", DeprecationWarning); print("well")'
    assert command(text, PYTHONWARNINGS="error")[:2] == (0, "well\n")


NAMES = "RANK WORLD_SIZE LOCAL_RANK PMI_SIZE OMPI_COMM_WORLD_SIZE"
COUNT = f'import os; print(len({{*"{NAMES}".split()}} & {{*os.environ}}))'


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}, "WORLD_SIZE=8"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "PMI_SIZE": "1"}, "OMPI_COMM_WORLD_SIZE=2"),
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "0"}, ""),
    ],
    ids=["a container", "MPI", "one process"],
)
def test_a_process_that_nobody_launched_with_others_works_alone(left, said):
    more = " in the environment: not of accelerate launch, so that this process works alone; for several, set launch "
    assert command(COUNT, **left) == (0, "0\n", f"{said}{more}in params.yaml" if said else "")


def test_one_of_several_that_were_launched_knows_it():
    launched = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "none", "PMI_SIZE": "4"}
    assert command(COUNT, **launched) == (0, "4\n", "")
