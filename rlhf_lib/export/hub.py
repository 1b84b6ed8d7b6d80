"""An export to the Hugging Face hub: the one command here that sends anything."""

from __future__ import annotations

import os
from pathlib import Path

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.export.directory import MANIFEST, read_manifest

PRIVATE_FILES = [".*", "*.tmp"]


def push(folder: str, repo_id: str, public: bool, message: str) -> str:
    """Upload an export, in one commit, to a repository that is made where there is none; gives the commit's address.

    The token is that of HF_TOKEN and no other. A `ParamsError` of one line where it does not serve.
    """
    if read_manifest(Path(folder)) is None:
        raise ParamsError(f"{folder}: no export, or not a whole one ({MANIFEST} is missing); make export writes one")
    if "/" not in repo_id:
        raise ParamsError(f"push: {repo_id or 'no repository'}: give it as owner/name (REPO=owner/name)")
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise ParamsError(
            f"push: no HF_TOKEN in the environment; make a token that may write to {repo_id}, and export HF_TOKEN=..."
        )
    from huggingface_hub import HfApi, errors

    from rlhf_lib.common.hub import one_line, patiently

    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=not public, exist_ok=True)
        if not public and not api.model_info(repo_id).private:
            raise ParamsError(f"push: {repo_id} is there and public; add --public (PUBLIC=1) if everybody may see it")
        done = patiently(
            lambda: api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=message, ignore_patterns=PRIVATE_FILES
            )
        )
    except errors.HFValidationError as error:
        raise ParamsError(f"push: {repo_id}: {one_line(error)}") from None
    except Exception as error:
        raise ParamsError(f"push: {repo_id}: {_reason(error, token)}") from None
    return str(done.commit_url)


def _reason(error: Exception, token: str) -> str:
    """What went wrong between here and the hub, and what to do."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import httpx

    from rlhf_lib.common.hub import cause, one_line

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set; unset it to push"
    if fault := cause(error, errors.HfHubHTTPError):
        status = fault.response.status_code
        known = {
            401: "the hub does not know the token in HF_TOKEN; make a new one",
            403: "the token in HF_TOKEN may not write there; make one with the right to write to it",
            404: "there is no such repository for this token; correct the name, or give the token the right to it",
        }
        said = one_line(fault).replace(token, "***")
        return known.get(status, f"the hub answers HTTP {status}: {said}")
    if fault := cause(error, httpx.TransportError):
        return f"cannot reach the hub at {constants.ENDPOINT} ({type(fault).__name__}); nothing was published"
    return one_line(error).replace(token, "***")
