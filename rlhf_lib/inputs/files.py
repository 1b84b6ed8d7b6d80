"""The files of a local input: what a glob matches, a folder holds, or a module imports."""

from __future__ import annotations

import ast
import glob
import os
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from rlhf_lib.data.load.files import glob_in
from rlhf_lib.inputs.named import Named

BRING = "or bring it here (what `dvc add` tracks comes with `dvc pull PATH`)"


def files(named: Named, root: Path) -> list[str]:
    """The files of an input below `root`, sorted, spelled as the param spells them (a folder's, a module's: with their
    place in it); none where there is nothing of the name.

    Hidden files and what Python leaves behind are none: nothing reads them.
    """
    name = os.path.expanduser(named.name)
    if named.kind == "module":
        return sorted(_of_module(named.name, root))
    if named.kind == "folder":
        return sorted(os.path.join(name, file) for file in _within(root / name))
    if os.path.lexists(root / name) or not glob.has_magic(name):
        return [name] if os.path.isfile(root / name) else []
    if too_wide(name):
        return []
    return sorted(path for path in glob.glob(name, root_dir=root, recursive=True) if os.path.isfile(root / path))


def too_wide(pattern: str) -> str | None:
    """Why a glob would look through more than anybody means, with the way out; None if it would not."""
    parts = os.path.expanduser(pattern).split(os.sep)
    if parts.count("**") > 1:
        return "'**' matches folders of any depth, and stands there more than once; keep one"
    if os.path.isabs(pattern) and "**" in parts and not any(parts[: parts.index("**")]):
        return "looks through the whole disk; name the folder in which '**' begins"
    return None


def nothing(name: str) -> str | None:
    """Why there is no file of a name or glob, with the way out; None if one is there."""
    name = os.path.expanduser(name)
    if os.path.isdir(name):
        return f"is a folder; name its files, such as {glob_in(name)}"
    if os.path.islink(name) and not os.path.exists(name):
        return f"a link to {os.readlink(name)}, which does not exist; fix it"
    if os.path.lexists(name):
        return None if os.path.isfile(name) else "is not a regular file; copy what it holds into one"
    if not glob.has_magic(name):
        return f"no such file; correct the path, {BRING}"
    if why := too_wide(name):
        return why
    if any(not os.path.isdir(path) for path in glob.glob(name, recursive=True)):
        return None
    return f"no file matches; correct the pattern ('**' matches folders of any depth), {BRING}"


def _within(folder: Path) -> Iterator[str]:
    seen = set()  # a link may lead back to where it is in
    for parent, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        inner = (name for name in sorted(folders) if name[0] != "." and name != "__pycache__")
        folders[:] = [name for name in inner if os.path.realpath(os.path.join(parent, name)) not in seen]
        yield from (os.path.relpath(os.path.join(parent, name), folder) for name in names if name[0] != ".")


def _of_module(module: str, root: Path) -> set[str]:
    """The project's files that importing a module may read: its whole package, and whatever of the project they
    import. A module that is no file of the project is an installed one, and has none."""
    package = module.partition(".")[0]
    found = {os.path.join(package, file) for file in _within(root / package)} if "." in module else set()
    todo = [module, *(file[: -len(".py")].replace(os.path.sep, ".") for file in found if file.endswith(".py"))]
    seen = set(todo)
    while todo:
        module = todo.pop()
        path = module.replace(".", os.path.sep)
        file = next((f for f in (os.path.join(path, "__init__.py"), f"{path}.py") if os.path.isfile(root / f)), None)
        if file is None:
            continue
        found.add(file)
        imported = {one for name in _imported(root, file) for one in _with_packages(name)} - seen
        seen |= imported
        todo += imported
    return found


def _with_packages(module: str) -> Iterator[str]:
    """A module, and the packages that it is in, which Python imports before it."""
    return accumulate(module.split("."), "{}.{}".format)


def _imported(root: Path, file: str) -> Iterator[str]:
    """Every module that a file of the project may import, at its top or inside a function."""
    try:
        tree = ast.parse((root / file).read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply
        return  # whoever imports it says so
    package = Path(file).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = [*above, *filter(None, [node.module])]
            yield from (".".join([*base, alias.name]) for alias in node.names)
