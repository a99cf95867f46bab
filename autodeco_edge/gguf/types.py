"""Value types and tensor types of GGUF, and how one value becomes bytes.

Owns the two number tables of the GGUF format (metadata value types, ggml tensor types)
and the encoding of a key, a tensor info and a file header. Knows nothing of files or
of AutoDeco. All integers are little-endian; strings are a u64 length, then UTF-8.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

MAGIC = b"GGUF"
VERSION = 3
VERSIONS = (2, 3)  # 2 differs from 3 only in what big-endian files may do
DEFAULT_ALIGNMENT = 32

# ---- metadata value types -----------------------------------------------------------
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)

VALUE_NAMES = ("u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64")

# value type -> struct character and size in bytes, of every type of fixed size
SCALARS = {
    U8: ("B", 1), I8: ("b", 1), U16: ("H", 2), I16: ("h", 2), U32: ("I", 4), I32: ("i", 4), F32: ("f", 4),
    BOOL: ("B", 1), U64: ("Q", 8), I64: ("q", 8), F64: ("d", 8),
}  # fmt: skip

INTEGERS = (U8, I8, U16, I16, U32, I32, U64, I64)

# ---- tensor types: number -> name, elements a block, bytes a block ------------------
GGML_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip

GGML_TYPE_OF_NAME = {name: number for number, (name, _, _) in GGML_TYPES.items()}

MAX_DIMS = 4
MAX_TENSOR_NAME = 63  # GGML_MAX_NAME less the final NUL
MAX_HEADS_BYTES = 1 << 28  # of the tensors of all heads together; the largest release has 8 MB


def type_name(ggml_type: int) -> str:
    """Name of a tensor type for messages; unknown numbers are spelled out."""
    return GGML_TYPES[ggml_type][0] if ggml_type in GGML_TYPES else f"ggml type {ggml_type}"


def tensor_nbytes(shape: Sequence[int], ggml_type: int) -> int:
    """Bytes of a tensor; ``shape`` in ggml order (ne0 first), ne0 a multiple of the block."""
    _, block, block_bytes = GGML_TYPES[ggml_type]
    return math.prod(shape) // block * block_bytes


def pad_to(n: int, alignment: int) -> int:
    """The smallest multiple of ``alignment`` (a power of two) that is >= n."""
    return (n + alignment - 1) & ~(alignment - 1)


def encode_header(version: int, n_tensors: int, n_kv: int) -> bytes:
    """The first 24 bytes of a file."""
    return MAGIC + struct.pack("<IQQ", version, n_tensors, n_kv)


def encode_string(text: str) -> bytes:
    """u64 length, then UTF-8."""
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def encode_kv(key: str, value_type: int, value: object) -> bytes:
    """One metadata pair; ``value_type`` is a scalar type or STRING."""
    head = encode_string(key) + struct.pack("<I", value_type)
    if value_type == STRING:
        return head + encode_string(str(value))
    return head + struct.pack("<" + SCALARS[value_type][0], value)


def encode_string_array(key: str, items: Sequence[str]) -> bytes:
    """One metadata pair whose value is an array of strings."""
    head = encode_string(key) + struct.pack("<IIQ", ARRAY, STRING, len(items))
    return head + b"".join(encode_string(item) for item in items)


def encode_u64_array(key: str, items: np.ndarray | Sequence[int]) -> bytes:
    """One metadata pair whose value is an array of u64; items [n]."""
    array = np.asarray(items, dtype="<u8")
    return encode_string(key) + struct.pack("<IIQ", ARRAY, U64, array.size) + array.tobytes()


def encode_tensor_info(name: str, shape: Sequence[int], ggml_type: int, offset: int) -> bytes:
    """One entry of the tensor table; ``shape`` in ggml order, ``offset`` from the data section."""
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return encode_string(name) + dims + struct.pack("<IQ", ggml_type, offset)
