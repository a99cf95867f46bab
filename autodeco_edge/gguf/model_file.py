"""A model as one thing, whether it lies in one GGUF or is split into parts.

Owns the names of the parts (llama.cpp's: ``model-00001-of-00003.gguf``) and ``ModelFile``, the first part with
the tensors of all. The first part holds the metadata; the others hold tensors only. Knows nothing of heads.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..errors import FormatError, MissingInputError
from .reader import GGUFFile, Tensor

KEY_COUNT, KEY_NUMBER = "split.count", "split.no"
MAX_PARTS = 999  # of the largest model there is: 200; each is opened


def part_paths(file: GGUFFile) -> tuple[Path, ...]:
    """The files of the model that begins in ``file``, in order; ``file`` alone where it is not split.

    Raises FormatError for a later part and for a name that does not say where the others are.
    """
    count = file.integer(KEY_COUNT) or 1
    if count <= 1:
        return (file.path,)
    number = file.integer(KEY_NUMBER) or 0
    if not 0 <= number < count <= MAX_PARTS:
        raise FormatError(f"{file.path}: part {number + 1} of {count}; allowed: up to {MAX_PARTS} parts")
    stem = file.path.name.removesuffix(_suffix(number, count))
    if stem == file.path.name or not stem:
        raise FormatError(
            f"{file.path}: part {number + 1} of {count} of a split model, under another name; its name must end in "
            f"{_suffix(number, count)}, as `llama-gguf-split` wrote it"
        )
    paths = tuple(file.path.with_name(stem + _suffix(i, count)) for i in range(count))
    if number:
        raise FormatError(
            f"{file.path}: part {number + 1} of {count} of a split model; give the first part, {paths[0].name}"
        )
    return paths


def _suffix(number: int, count: int) -> str:
    return f"-{number + 1:05d}-of-{count:05d}.gguf"


class ModelFile(GGUFFile):
    """An open model. ``kv`` and the spans are those of the first part, ``tensors`` of all, in order of parts.

    parts   the files after the first, open

    Raises MissingInputError for a part that is not there, FormatError for one that belongs elsewhere.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.parts: list[GGUFFile] = []
        self._home: dict[str, GGUFFile] = {}
        super().__init__(path)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the model."""
        return (self.path, *(part.path for part in self.parts))

    def read_tensor(self, name: str, begin: int, nbytes: int) -> bytes:
        """``nbytes`` of a tensor's data from its byte ``begin``, in whichever part it lies."""
        return GGUFFile.read_tensor(self._home.get(name, self), name, begin, nbytes)

    def close(self) -> None:
        for part in self.parts:
            part.close()
        super().close()

    def _parse(self) -> None:
        super()._parse()
        paths = part_paths(self)
        for i, path in enumerate(paths[1:], 1):
            part = _open_part(path, i, len(paths))
            self.parts.append(part)
            self._add(part.tensors, part)

    def _add(self, tensors: dict[str, Tensor], part: GGUFFile) -> None:
        for name, tensor in tensors.items():
            if name in self.tensors:
                raise FormatError(f"{part.path}: tensor {name!r} lies in an earlier part too")
            self.tensors[name], self._home[name] = tensor, part


def _open_part(path: Path, number: int, count: int) -> GGUFFile:
    what = f"part {number + 1} of {count}"
    try:
        part = GGUFFile(path)
    except MissingInputError as error:
        raise MissingInputError(f"{error} ({what} of a split model); all parts must lie in one folder") from None
    with contextlib.ExitStack() as stack:
        stack.callback(part.close)
        said = part.integer(KEY_NUMBER), part.integer(KEY_COUNT)
        if said != (number, count):
            raise FormatError(
                f"{path}: its keys say {KEY_NUMBER} {said[0]}, {KEY_COUNT} {said[1]}; by its name it is {what}"
            )
        stack.pop_all()
    return part
