"""Weights by name, ``hf:owner/name[@revision]``: fetched from a Hugging Face hub, and pushed there.

Only a card and safetensors are fetched, never a pickle.  `huggingface_hub` keeps them in its cache and heeds
its environment: ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN``, and ``HF_HUB_OFFLINE=1``, with which nothing but
the cache is asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

from parts2whole.errors import first_line, name_some
from parts2whole.extras import install_hint
from parts2whole.run_folder import CARD, ENCODER, MODEL, OWN_DECODER
from parts2whole.weights.base import WeightsError

PREFIX = "hf:"
REPOSITORY = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
NEEDED = (CARD, ENCODER)
FETCHED = (*NEEDED, OWN_DECODER, MODEL)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".model", ".ts")


@dataclasses.dataclass(frozen=True)
class HubName:
    """A repository of weights, and a revision of it: a branch, a tag or a commit; None is the newest."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


@dataclasses.dataclass(frozen=True)
class Fetched:
    """The weights folder of a repository in the cache, and its name with the commit that it is."""

    folder: Path
    name: HubName


def parse_hub(text: str | Path) -> HubName | None:
    """``hf:owner/name[@revision]`` in its parts; None where it begins otherwise or is a path that exists.

    Raises:
        WeightsError: it isn't of that form.
    """
    if not str(text).startswith(PREFIX) or Path(text).exists():
        return None
    repository, at, revision = str(text).removeprefix(PREFIX).partition("@")
    if not REPOSITORY.fullmatch(repository) or (at and not revision):
        raise WeightsError(f"expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION, got {text}")
    return HubName(repository, revision or None)


def fetch(name: HubName) -> Fetched:
    """The weights of a repository, from the hub or, where that can't be reached, from the cache.

    Raises:
        WeightsError: there is no such repository or revision, it holds no card or no safetensors, or it can
            neither be reached nor is in the cache.
    """
    hub, errors = _libraries()
    reached = True
    try:
        found = hub.HfApi().model_info(name.repository, revision=name.revision)
        _check_files(HubName(name.repository, found.sha), [file.rfilename for file in found.siblings or ()])
    except errors.RevisionNotFoundError as error:
        raise WeightsError(
            f"{PREFIX}{name.repository} has no revision {name.revision}; give a branch, a tag or a commit, "
            "or leave it out for the newest"
        ) from error
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{PREFIX}{name.repository} is gated: ask for access on its page, then log in (hf auth login)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"{hub.constants.ENDPOINT} has no repository {name.repository} that you may see; is the name "
            "right? A private one needs you logged in (hf auth login)"
        ) from error
    except (errors.HTTPError, OSError):
        reached = False
    try:
        folder = hub.snapshot_download(
            name.repository, revision=name.revision, allow_patterns=[*FETCHED], local_files_only=not reached
        )
    except (errors.HTTPError, OSError) as error:
        if not isinstance(error, errors.LocalEntryNotFoundError):
            raise WeightsError(f"{name} could not be fetched: {first_line(error).rstrip('.')}") from error
        offline = " as HF_HUB_OFFLINE is set" if hub.constants.HF_HUB_OFFLINE else ""
        raise WeightsError(
            f"{name} is not in the cache {hub.constants.HF_HUB_CACHE}, and {hub.constants.ENDPOINT} can't be "
            f"reached{offline}; fetch it once with a network"
        ) from error
    fetched = Fetched(Path(folder), HubName(name.repository, Path(folder).name))
    _check_files(fetched.name, [file.name for file in fetched.folder.iterdir()])
    return fetched


def push(folder: Path, repository: str, *, public: bool) -> HubName:
    """Put the files of a folder into a repository, which is made if need be, in one commit.

    Args:
        folder: all its files are pushed.
        repository: ``owner/name``.
        public: whether a repository that is made can be seen by everybody; one that is there stays as it is.

    Raises:
        WeightsError: the hub can't be reached or refuses; a repository that was made for it is gone again.
    """
    check_repository(repository)
    hub, errors = _libraries()
    api = hub.HfApi()
    made = False
    try:
        made = not api.repo_exists(repository)
        api.create_repo(repository, private=None if not made else not public, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Weights and their card, by parts2whole",
            delete_patterns=None if made else [*FETCHED, "encoder.py"],  # what an earlier push had more
        )
    except (errors.HTTPError, OSError, RuntimeError, ValueError) as error:
        if made:
            with contextlib.suppress(errors.HTTPError, OSError):
                api.delete_repo(repository, missing_ok=True)
        status = getattr(getattr(error, "response", None), "status_code", None)
        mend = " Log in with a token that may write (hf auth login)" if status in (401, 403) else ""
        reason = first_line(error).rstrip(".")
        raise WeightsError(
            f"{repository} could not be pushed to {hub.constants.ENDPOINT}: {reason}.{mend}"
        ) from error
    return HubName(repository, str(done.oid))


def check_repository(repository: str) -> None:
    """Raise `WeightsError` unless it is ``owner/name``."""
    if not REPOSITORY.fullmatch(repository):
        raise WeightsError(f"a repository is OWNER/NAME, got {repository!r}")


def _check_files(name: HubName, files: list[str]) -> None:
    """Raise `WeightsError` unless the files of a repository are weights with a card."""
    missing = [file for file in NEEDED if file not in files]
    if not missing:
        return
    pickles = [file for file in files if file.endswith(PICKLES)]
    there = [file for file in files if file.endswith((".safetensors", ".json"))]
    if pickles and ENCODER in missing:
        why = f"it holds {name_some(pickles, 3)}: pickles, which are never loaded from a hub"
    else:
        why = f"it holds {name_some(there, 3) or 'neither safetensors nor JSON'}"
    raise WeightsError(
        f"{name} has no {' and no '.join(missing)}, which weights export --push writes; {why}. If its "
        "weights are of a known source, download the file and give SOURCE:PATH"
    )


def _libraries() -> tuple[Any, Any]:
    """``huggingface_hub`` and its errors.

    Raises:
        WeightsError: it isn't installed.
    """
    try:
        return importlib.import_module("huggingface_hub"), importlib.import_module("huggingface_hub.errors")
    except ImportError as error:
        raise WeightsError(
            f"weights by name need a package that isn't installed ({error.name}): {install_hint('hub')}"
        ) from error
