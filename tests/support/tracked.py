"""Files that git tracks."""

import subprocess


def track(*paths):
    """Let git track some files of the working directory, which becomes a repository."""
    for command in (["init", "-q"], ["add", *paths]):
        subprocess.run(["git", *command], check=True)
