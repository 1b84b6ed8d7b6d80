"""Uploads to a stand-in hub on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_processes import start
from standin_uploads import READS, WRITES, Uploaded, UploadHub

CARD = "---\nlicense: unknown\n---\n\n# dpo\n"


@pytest.fixture
def hub() -> Iterator[UploadHub]:
    with UploadHub() as hub:
        yield hub


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "dist/dpo"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 99)
    (folder / ".hidden").write_text("mine")
    (folder / "export.json").write_text(json.dumps({"model": "dpo"}))
    return folder


@pytest.fixture
def push(hub, export, tmp_path):
    """A function that runs the command, and gives its exit code, what it printed and what it complained of."""

    def push(*arguments, token=WRITES, **env):
        env = {"HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", **env}
        command = ("-m", "rlhf_lib.export", "push", *(arguments or (str(export), "me/dpo")))
        process = start(hub, tmp_path, *command, **env)
        out, error = process.communicate(timeout=120)
        return process.returncode, out, error

    return push


def test_a_push_makes_a_private_repository_with_the_files_of_the_export(hub, export, push):
    code, out, error = push()
    assert (code, out) == (0, f"{hub.url}/me/dpo/commit/{'c' * 40}\n"), error
    files = {file.name: file.read_bytes() for file in export.iterdir() if file.name != ".hidden"}
    assert hub.uploads == {"me/dpo": Uploaded(private=True, files=files)}


def test_public_is_said(hub, export, push):
    assert push(str(export), "me/dpo", "--public")[0] == 0
    assert hub.uploads["me/dpo"].private is False


def refused(result):
    """The one line of a command that failed."""
    code, out, error = result
    assert (code, out, error.count("\n")) == (1, "", 1), error
    return error


def test_into_a_repository_that_everybody_sees_nothing_goes_unasked(hub, push):
    hub.uploads["me/dpo"] = Uploaded(private=False)
    assert "me/dpo is there and public; add --public" in refused(push())
    assert hub.uploads["me/dpo"].files == {}


def test_a_second_push_replaces_the_first(hub, export, push):
    push()
    (export / "README.md").write_text(CARD + "again\n")
    assert push()[0] == 0 and hub.uploads["me/dpo"].files["README.md"].endswith(b"again\n")


@pytest.mark.parametrize(
    ("token", "told"),
    [("", "no HF_TOKEN"), ("hf_nobody", "does not know the token"), (READS, "may not write there")],
)
def test_without_the_right_nothing_is_sent(hub, push, token, told):
    assert told in refused(push(token=token))
    assert not any("/commit/" in line or "/store/" in line for line in hub.requests)


def test_a_token_that_a_login_left_is_not_used(hub, push, tmp_path):
    (tmp_path / "token").write_text(WRITES)  # in HF_HOME, where huggingface_hub looks
    assert "no HF_TOKEN" in refused(push(token=""))
    assert hub.requests == []


def test_no_network_and_no_offline_mode_in_one_line(push):
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HTTPS_PROXY": "", "NO_PROXY": "127.0.0.1"}
    assert "cannot reach the hub at http://127.0.0.1:9" in refused(push(**nowhere))
    assert "HF_HUB_OFFLINE is set" in refused(push(HF_HUB_OFFLINE="1"))


def test_a_card_that_the_hub_refuses_stops_it_before_any_file(hub, export, push):
    (export / "README.md").write_text(CARD.replace("unknown", "mine"))
    assert '"license" must be one of' in refused(push())
    assert not hub.stored


def test_a_token_that_the_hub_repeats_is_masked(hub, push):
    hub.fail(9, on=f"POST /api/models/me/dpo/preupload/{'main'}", status=418)
    assert WRITES not in refused(push())


@pytest.mark.parametrize(
    ("folder", "name", "told"),
    [
        ("nowhere", "me/dpo", "nowhere: no export"),
        (".", "me/dpo", "no export, or not a whole one"),
        ("dist/dpo", "me/d po", "me/d po"),
        ("dist/dpo", "", "owner/name"),
    ],
)
def test_what_is_no_export_or_no_name_is_refused(hub, export, push, folder, name, told):
    assert told in refused(push(str(export.parents[1] / folder), name))
    assert hub.uploads == {}
