"""What comes before all else in every command: imported by the package itself, with what Python has loaded by then."""

import atexit
import errno
import os
import sys
import warnings
from contextlib import suppress

# Folders of the project that Python finds as packages; all else in its root must have names that no library has.
OWN = ("benchmarks", "examples", "rewards", "rlhf_lib", "stages", "tests", "test")  # of Python, test is for its own

# By these accelerate knows one of several processes: torchrun's, and those of MPI and of Slurm.
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")

GO_ON = "dvc repro goes on where it stopped"
FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or what this user may take of it
_BARRED = (errno.EROFS, errno.EACCES, errno.EPERM)


def shadow() -> str | None:
    """What hides a library: a file or folder in the working directory, where `python -m` looks first; None: nothing."""
    here = os.getcwd()
    if not sys.path or sys.path[0] not in ("", here):
        return None
    elsewhere = {os.path.abspath(path) for path in sys.path[1:]} - {here}
    for entry in sorted(os.listdir(here)):
        name, extension = os.path.splitext(entry)
        is_package = os.path.isfile(os.path.join(here, entry, "__init__.py"))
        if name in OWN or not (extension == ".py" or is_package):
            continue
        paths = (os.path.join(path, name) for path in elsewhere)
        if name in sys.stdlib_module_names or any(
            os.path.isfile(f"{path}.py") or os.path.isfile(os.path.join(path, "__init__.py")) for path in paths
        ):
            return f"{entry}: in the project's folder, hides the library {name} from Python; rename it, or move it"
    return None


def prepare_streams() -> None:
    """Standard streams that are closed lead nowhere, instead of into the next file that is opened; what an encoding has
    no sign for is written as its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")


def work_alone() -> None:
    """Forget that this is one of several processes, where that is left of a batch system, a container or MPI.

    Those that compute together are started by torchrun, which accelerate launch calls. To any others this one would
    give no share, and it would wait for them for half an hour.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:  # set by torchrun
        return
    sizes = {name: os.environ.pop(name) for name in _SIZES if name in os.environ}
    for name in (*_RANKS, "LOCAL_RANK"):
        os.environ.pop(name, None)
    if told := ", ".join(f"{name}={size}" for name, size in sizes.items() if size != "1"):
        print(
            f"{told} in the environment: not of accelerate launch, so that this process works alone; for several, set "
            "launch in params.yaml",
            file=sys.stderr,
            flush=True,
        )


def barred(error: BaseException) -> str | None:
    """What to say where this user may not read or write a file; None of any other error."""
    if isinstance(error, OSError) and error.errno in _BARRED and error.filename is not None:
        return f"{error.filename}: {error.strerror}; give this user the right to read and write there"
    return None


def remove_cut_module(error: BaseException) -> str | None:
    """Take away the compiled module that Python could not read, and say so; None of any other error.

    On a full disk Python writes one as far as it goes, and puts it in place.
    """
    trace = error.__traceback__
    while isinstance(error, EOFError | ValueError) and "marshal data" in str(error) and trace is not None:
        if path := trace.tb_frame.f_locals.get("bytecode_path"):  # of the import system
            with suppress(OSError):
                os.unlink(path)
            return f"{os.path.relpath(path)}: Python's compiled module was cut short, on a full disk say; run it again"
        trace = trace.tb_next
    return None


def told(error: BaseException) -> tuple[str, int] | None:
    """The line and the exit code for an end that is no fault of the code; None for any other."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, BrokenPipeError):
        return "nobody reads the output any more; run it again without the pipe", 1
    if isinstance(error, OSError) and error.errno in FULL:
        return "the disk is full, or what the output goes to; free some space", 1
    line = barred(error) or remove_cut_module(error)
    return None if line is None else (line, 1)


def _flush() -> None:
    """Write what stdout still holds, which Python would do last of all, and tell nobody in one line."""
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except OSError as error:
        line, code = told(error) or (f"the output cannot be written: {error.strerror}", 1)
        print(line, file=sys.stderr, flush=True)
        os._exit(code)


def _excepthook(kind, error, trace):  # type: ignore[no-untyped-def]
    if (line := told(error)) is None:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"\n{line[0]}", file=sys.stderr, flush=True)
    os._exit(line[1])


def prepare() -> None:
    """Do all of that; a `SystemExit` of one line where a file hides a library."""
    if fault := shadow():
        raise SystemExit(fault)
    prepare_streams()
    work_alone()
    sys.excepthook = _excepthook
    atexit.register(_flush)
    # Libraries warn while they are imported: PYTHONWARNINGS=error would keep every command from starting.
    warnings.filters[:] = [entry for entry in warnings.filters if entry[0] != "error"]  # type: ignore[index]


_, _, _words = " ".join(sys.orig_argv).partition(" -m ")
if _words.partition(".")[0] in OWN:  # a command of the project: whoever imports it as a library keeps what he has set
    prepare()
