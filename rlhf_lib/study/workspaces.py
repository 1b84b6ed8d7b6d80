"""A clone of the project for each worker of a study.

Where DVC begins an experiment it changes the workspace for a moment: it detaches HEAD, puts edits aside and rewrites
params.yaml. Killed then, it leaves all that behind, and two that begin at once get in each other's way. So each worker
has a clone, which may be left in any state; it shares the project's cache and checkpoints, and hands over what has
finished.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from rlhf_lib.common.place import inside, repository
from rlhf_lib.experiments.__main__ import output

CONFIG = Path(".dvc/config.local")


class Workspace:
    """A clone at the project's commit, of the whole repository; the project is in its `folder`."""

    def __init__(self, clone: Path) -> None:
        self.clone, self.folder = clone, clone / inside()
        self.project = Path.cwd()
        self.commit = output("git", "rev-parse", "HEAD").strip()
        self.cache = str((self.project / output("dvc", "cache", "dir").strip()).resolve())

    def make(self) -> None:
        """Clone the project anew."""
        shutil.rmtree(self.clone, ignore_errors=True)
        output("git", "clone", "--quiet", "--no-checkout", "--shared", str(repository()), str(self.clone))
        self._git("checkout", "--quiet", "--detach", self.commit)
        for key in ("user.name", "user.email"):
            with suppress(SystemExit):  # git may have it from the environment
                self._git("config", key, output("git", "config", key).strip())
        if CONFIG.is_file():
            shutil.copy(CONFIG, self.folder / CONFIG)
        # seen from the clone: DVC writes its configuration in ASCII, and the path of the project may have other letters
        cache = os.path.relpath(self.cache, os.path.realpath(self.folder))
        output("dvc", "--cd", str(self.folder), "config", "--local", "cache.dir", cache)
        (self.project / "checkpoints").mkdir(exist_ok=True)
        exclude = self.clone / ".git/info/exclude"
        exclude.parent.mkdir(exist_ok=True)
        exclude.write_text("checkpoints\n", encoding="utf-8")
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        (self.folder / "checkpoints").symlink_to(self.project / "checkpoints")

    def clean(self) -> None:
        """Take back what the last experiment changed of the files that git tracks; what DVC tracks may stay."""
        self._git("reset", "--quiet", "--hard", self.commit)

    def hand_over(self, name: str) -> None:
        """Make an experiment of the clone one of the project's."""
        refs = self._git("for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
        for ref in (ref for ref in refs if ref.endswith(f"/{name}")):
            # git reads a relative path from the repository's root
            output("git", "fetch", "--quiet", str(self.clone.absolute()), f"+{ref}:{ref}")

    def remove(self) -> None:
        """Delete the clone."""
        shutil.rmtree(self.clone, ignore_errors=True)

    def _git(self, *words: str) -> str:
        return output("git", "-C", str(self.clone), *words)
