"""What is never freed: whatever the workspace, git or an experiment that waits names."""

import pytest
from copied_project import commit, run
from swept import BETAS, has_weights, prune, revision


def back(project):
    """The workspace as the last commit has it."""
    run(project, "git", "checkout", "-q", ".")
    run(project, "dvc", "checkout", "-q")


def branch(project):
    run(project, "git", "branch", "kept", revision(project, "best"))


def older_commit(project):
    run(project, "dvc", "exp", "apply", "best")
    commit(project)
    run(project, "git", "revert", "--no-edit", "HEAD")
    run(project, "dvc", "checkout", "-q")


def tag(project):
    run(project, "git", "tag", "-a", "-m", "kept", "kept", revision(project, "best"))


def remote_branch(project):
    run(project, "git", "update-ref", "refs/remotes/origin/main", revision(project, "best"))


def applied(project):
    run(project, "dvc", "exp", "apply", "best")


def staged(project):
    run(project, "dvc", "exp", "apply", "best")
    run(project, "git", "add", "-A")
    run(project, "git", "restore", "--worktree", "--source=HEAD", ".")


def stash(project):
    run(project, "dvc", "exp", "apply", "best")
    run(project, "git", "stash")
    (project / "note").write_text("another")
    run(project, "git", "stash", "--include-untracked")


def queued(project):
    run(project, "dvc", "exp", "apply", "best")
    for name in ("one", "two"):
        run(project, "dvc", "exp", "run", "--queue", "--name", name, "-S", "base.beta=5")
        back(project)


def worktree(project):
    run(project, "git", "worktree", "add", "--detach", str(project.parent / "tree"), revision(project, "best"))


def run_in_a_worktree(project):
    """Which shares the cache, and has not committed."""
    tree = project.parent / "tree"
    run(project, "git", "worktree", "add", "--detach", str(tree))
    run(tree, "dvc", "cache", "dir", "--local", str(project / ".dvc/cache"))
    run(tree, "sed", "-i", f"s/^train: .*/train: {{beta: {BETAS['best']}}}/", "params.yaml")
    run(tree, "dvc", "repro", "-q")


def detached(project):
    run(project, "git", "checkout", "-q", revision(project, "best"))


def linked(project):
    run(project, "dvc", "config", "--local", "cache.type", "symlink")
    run(project, "dvc", "exp", "apply", "best")
    run(project, "git", "checkout", "-q", ".")  # but no `dvc checkout`
    assert (project / "models/train/weights").is_symlink()


def added(project):
    """By `dvc add`, under another name."""
    run(project, "dvc", "exp", "apply", "best")
    run(project, "cp", "-r", "models/train", "shown")
    run(project, "dvc", "add", "-q", "shown")
    back(project)


CASES = [
    *(branch, tag, applied, stash, linked),
    *(
        pytest.param(case, marks=pytest.mark.slow)
        for case in (older_commit, remote_branch, staged, queued, worktree, run_in_a_worktree, detached, added)
    ),
]


@pytest.mark.parametrize("name_it", CASES, ids=lambda case: case.__name__)
def test_never_what_something_else_names(project, name_it):
    name_it(project)
    done = prune(project, "--apply")
    assert done.returncode == 0, done.stderr
    assert has_weights(project, BETAS["best"])
    assert not has_weights(project, BETAS["low"]) and not has_weights(project, BETAS["high"])
    assert has_weights(project, 0) and has_weights(project, 0, "base")
