"""A copy of a GGUF with some keys changed, added or (None) left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFReader, GGUFValueType, GGUFWriter


def changed_copy(source: Path, path: Path, keys: Mapping[str, Any]) -> Path:
    reader = GGUFReader(source)
    writer = GGUFWriter(path, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture" and name not in keys:
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    for name, value in keys.items():
        if value is not None:
            writer.add_key_value(
                name, value, _type(value), _type(value[0], array=True) if isinstance(value, list) else None
            )
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _type(value: Any, array: bool = False) -> GGUFValueType:
    """Whole numbers are ids, so unsigned; in arrays they are kinds of tokens, which llama.cpp reads as signed."""
    kind = GGUFValueType.get_type(value)
    return GGUFValueType.UINT32 if kind is GGUFValueType.INT32 and not array else kind
