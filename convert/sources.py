"""Finding the files of a checkpoint: a folder, one file, or a Hugging Face id.

Owns the question "which .safetensors files, which config.json". Does not open tensors
and does not know what heads are, apart from the names to ask a hub for. Pickle files
(.bin, .pt and the like) are never opened.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import AutodecoError, FormatError, MissingInputError
from ..io.printing import first_line
from ..io.regular import read_regular
from ..paths import hub_endpoint
from .safetensors_reader import PICKLE_REFUSAL, parse_json_object

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
INDEX_SUFFIX = ".safetensors.index.json"
MAX_JSON_BYTES = 1 << 25  # an index of 90,000 tensors has 9 MB

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HEAD_KEY = re.compile(r"(module\.adapter\.|adapter\.)?(temp_head|top_p_head)\.")


@dataclass(frozen=True)
class CheckpointFiles:
    """Files of one checkpoint. ``label`` is its name for people; ``config`` and ``readme`` may not exist."""

    label: str
    files: tuple[Path, ...]
    indexes: tuple[Path, ...]
    config: Path
    readme: Path

    @property
    def read(self) -> tuple[Path, ...]:
        """Every file that is read, if it is there."""
        return (*self.files, *self.indexes, self.config, self.readme)


def locate(heads: str | os.PathLike[str]) -> CheckpointFiles:
    """The files behind ``heads``. Raises MissingInputError or FormatError when there are none to read."""
    path = Path(heads)
    try:
        if path.is_dir():
            return _locate_folder(path, path.resolve().name)
        if path.exists():
            return _locate_file(path)
    except PermissionError as error:
        raise MissingInputError(f"{heads}: cannot be read: {error.strerror}") from None
    except (OSError, ValueError):  # a name too long, or with a NUL byte
        raise MissingInputError(f"{str(heads)!r}: not a file name") from None
    if _HUB_ID.fullmatch(str(heads)):
        return _locate_folder(_download(str(heads)), str(heads).split("/")[1])
    raise MissingInputError(
        f"{heads}: no such file or folder; HEADS is a folder, a .safetensors file or a Hugging Face id (user/repo)"
    )


def _locate_file(path: Path) -> CheckpointFiles:
    if path.name.endswith(INDEX_SUFFIX):
        return _locate_folder(path.parent, path.parent.resolve().name)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise FormatError(f"{path}: {PICKLE_REFUSAL}")
    if path.suffix == ".gguf":
        raise FormatError(
            f"{path}: this is a GGUF file, not a checkpoint; `autodeco-edge show {path}` says what is in it"
        )
    folder = path.parent
    return CheckpointFiles(folder.resolve().name, (path,), (), folder / "config.json", folder / "README.md")


def _locate_folder(folder: Path, label: str) -> CheckpointFiles:
    names = sorted(os.listdir(folder))
    files = tuple(folder / name for name in names if name.endswith(".safetensors"))
    if not files:
        raise _nothing_in(folder, names)
    indexes = tuple(folder / name for name in names if name.endswith(INDEX_SUFFIX))
    return CheckpointFiles(label, files, indexes, folder / "config.json", folder / "README.md")


def _nothing_in(folder: Path, names: list[str]) -> AutodecoError:
    pickles = [name for name in names if Path(name).suffix.lower() in PICKLE_SUFFIXES]
    if pickles:
        return FormatError(f"{folder / pickles[0]}: {PICKLE_REFUSAL}")
    return MissingInputError(
        f"{folder}: no .safetensors file in this folder; expected model.safetensors or a sharded set"
    )


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a small file."""
    return parse_json_object(read_regular(path, MAX_JSON_BYTES), str(path))


def index_of_heads(indexes: tuple[Path, ...]) -> dict[str, str]:
    """Head tensor name -> shard name, out of the index files."""
    found: dict[str, str] = {}
    for path in indexes:
        weight_map = read_json(path).get("weight_map")
        if not isinstance(weight_map, dict):
            raise FormatError(f"{path}: no weight_map in this index")
        found.update({k: v for k, v in weight_map.items() if _HEAD_KEY.match(k) and isinstance(v, str)})
    return found


# ---- Hugging Face hub ---------------------------------------------------------------


def _download(repo: str) -> Path:
    """A local snapshot with the JSON files and only those shards that hold heads."""
    folder = _snapshot(repo, ["*.json", "README.md"])
    indexes = tuple(sorted(folder.glob("*" + INDEX_SUFFIX)))
    shards = sorted(set(index_of_heads(indexes).values()))
    if not all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in shards):
        raise FormatError(f"{repo}: the index names a shard that is not a plain .safetensors file name")
    return _snapshot(repo, ["*.json", "README.md", *(shards or ["model.safetensors", "autodeco_heads*.safetensors"])])


def _snapshot(repo: str, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(repo, allow_patterns=patterns, endpoint=hub_endpoint()))
    except ImportError:
        raise MissingInputError(f"{repo}: no such local path, and huggingface_hub is not installed") from None
    except AutodecoError:
        raise
    except Exception as error:  # the hub library raises its own, requests' and the system's errors
        raise MissingInputError(
            f"{repo}: no such local path, and it could not be fetched from Hugging Face: {first_line(error)}; "
            "check the name and the network, or pass a local folder"
        ) from None
