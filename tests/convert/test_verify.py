"""The Python loader and verify: every departure from docs/format.md is an error of its own."""

import struct

import numpy as np
import pytest

from autodeco_edge.convert.base import open_base
from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.describe import describe_file, format_rows
from autodeco_edge.convert.export import write_heads
from autodeco_edge.convert.merge import merge_single_file
from autodeco_edge.convert.verify import check_base, read_heads_gguf, verify_file
from autodeco_edge.errors import FormatError, MismatchError
from autodeco_edge.gguf import keys as fmt
from autodeco_edge.gguf import types as gt
from convert_makers import make_base, make_config, make_folder, make_heads

H, M = 8, 4
ZEROS = {"fc1.weight": (H, M), "fc1.bias": (M,), "fc2.weight": (M,), "fc2.bias": (1,)}


def default_keys():
    return {
        "general.architecture": (gt.STRING, "llama"),
        "general.type": (gt.STRING, "adapter"),
        "adapter.type": (gt.STRING, "autodeco"),
        fmt.KEY_FORMAT_VERSION: (gt.U32, 1),
        fmt.KEY_N_EMBD: (gt.U32, H),
        fmt.KEY_N_HIDDEN: (gt.U32, M),
        fmt.KEY_TEMP_SCALE: (gt.F32, 2.0),
        fmt.KEY_TOP_P_FEATURES: (gt.ARRAY, list(fmt.FEATURES_BASIC)),
    }


def default_tensors():
    tensors = {
        f"{head}.{name}": (0, shape, bytes(4 * int(np.prod(shape))))
        for head in ("temp", "top_p")
        for name, shape in ZEROS.items()
    }
    return tensors | {"top_p.fc1_extra.weight": (0, (1, M), bytes(4 * M))}


def encode(key, kind, value):
    if kind == gt.ARRAY:
        return gt.encode_string_array(key, value)
    if kind == gt.U64 and isinstance(value, list):
        return gt.encode_u64_array(key, value)
    return gt.encode_kv(key, kind, value)


def write(path, keys, tensors):
    """A heads file with whatever is asked for."""
    data, infos = b"", b""
    for name, (ggml_type, shape, raw) in tensors.items():
        infos += gt.encode_tensor_info(f"autodeco.{name}", shape, ggml_type, len(data))
        data += raw + bytes(-len(raw) % 32)
    head = gt.encode_header(3, len(tensors), len(keys)) + b"".join(encode(k, *v) for k, v in keys.items()) + infos
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def write_single(path, keys, tensors):
    """The same content as the metadata of a file without tensors."""
    keys = {k: v for k, v in keys.items() if k not in ("general.type", "adapter.type")}
    keys.setdefault(fmt.KEY_ARCH, (gt.STRING, "llama"))
    for name, (ggml_type, shape, raw) in tensors.items():
        prefix = fmt.META_TENSOR_PREFIX + name
        words = np.frombuffer(raw + bytes(-len(raw) % 8), "<u8").tolist()
        keys |= {
            f"{prefix}.type": (gt.U32, ggml_type),
            f"{prefix}.shape": (gt.U64, list(shape)),
            f"{prefix}.data": (gt.U64, words),
        }
    return path, keys


def test_the_made_file_is_good(tmp_path):
    loaded = read_heads_gguf(write(tmp_path / "f.gguf", default_keys(), default_tensors()))
    assert loaded.spec.features == fmt.FEATURES_BASIC and loaded.kind == "heads file"
    path, keys = write_single(tmp_path / "s.gguf", default_keys(), default_tensors())
    assert read_heads_gguf(write(path, keys, {})).kind == "single file"


NAN4 = struct.pack("<4f", 0, 0, float("nan"), 0)
INF4 = struct.pack("<4f", 0, 0, float("inf"), 0)
BAD_KEYS = {
    "general.type": ((gt.STRING, "model"), "autodeco keys but no heads"),
    "adapter.type": ((gt.STRING, "lora"), "autodeco keys but no heads"),
    "general.architecture": (None, "'general.architecture' is missing"),
    fmt.KEY_FORMAT_VERSION: ((gt.U32, 2), "is 2, this program reads 1; update"),
    fmt.KEY_N_EMBD: ((gt.U32, 9), r"'temp.fc1.weight' has the shape \[4, 8\], expected \[4, 9\]"),
    fmt.KEY_N_HIDDEN: ((gt.U32, 0), "must be at least 1"),
    fmt.KEY_TEMP_SCALE: ((gt.F32, 1.0), "is 1; allowed: 2"),
    fmt.KEY_TOP_P_FEATURES: ((gt.ARRAY, ["entropy"]), "allowed: "),
    fmt.KEY_MEAN_TEMP: ((gt.F32, 2.5), "is 2.5; allowed"),
    fmt.KEY_MEAN_TOP_P: ((gt.F32, float("nan")), "expected a finite number"),
    fmt.KEY_N_VOCAB: ((gt.STRING, "many"), "of type string, expected u32"),
    fmt.KEY_SOURCE_SHA256: ((gt.U32, 1), "of type u32, expected string"),
}


@pytest.mark.parametrize("key", BAD_KEYS)
def test_bad_key(tmp_path, key):
    value, message = BAD_KEYS[key]
    keys = default_keys()
    keys.pop(key, None)
    if value is not None:
        keys[key] = value
    with pytest.raises(FormatError, match=message):
        read_heads_gguf(write(tmp_path / "f.gguf", keys, default_tensors()))


@pytest.mark.parametrize("key", [k for k in default_keys() if k.startswith("autodeco.")])
def test_missing_or_mistyped_key(tmp_path, key):
    keys = default_keys()
    value = keys.pop(key)
    message = "allowed: " if key == fmt.KEY_TOP_P_FEATURES else f"key '{key}' is missing"
    with pytest.raises(FormatError, match=message):
        read_heads_gguf(write(tmp_path / "f.gguf", keys, default_tensors()))
    keys[key] = (gt.U8, 1) if value[0] != gt.U8 else (gt.U32, 1)
    with pytest.raises(FormatError, match=f"key '{key}' is of type u8, expected"):
        read_heads_gguf(write(tmp_path / "f.gguf", keys, default_tensors()))


BAD_TENSORS = {
    "missing": ("temp.fc2.bias", None, "'temp.fc2.bias' is missing"),
    "extra missing": ("top_p.fc1_extra.weight", None, "'top_p.fc1_extra.weight' is missing"),
    "unknown": ("temp.fc3.weight", (0, (4,), bytes(16)), "'temp.fc3.weight' is not one of the format"),
    "foreign": ("blk.0.weight", (0, (4,), bytes(16)), "'blk.0.weight' is not one of the format"),
    "bias in F16": ("temp.fc1.bias", (1, (M,), bytes(2 * M)), "'temp.fc1.bias' is F16; allowed: F32"),
    "weight in Q4_0": ("temp.fc1.weight", (2, (32, M), bytes(18 * M)), "is Q4_0; allowed: F32, F16, BF16, Q8_0"),
    "short bias": ("temp.fc1.bias", (0, (3,), bytes(12)), r"shape \[3\], expected \[4\]"),
    "transposed": ("temp.fc1.weight", (0, (M, H), bytes(4 * H * M)), r"shape \[8, 4\], expected \[4, 8\]"),
    "one more dimension": ("temp.fc2.weight", (0, (M, 1), bytes(4 * M)), r"shape \[1, 4\], expected \[4\]"),
    "not a number": ("temp.fc1.bias", (0, (M,), NAN4), "'temp.fc1.bias' holds a NaN or an infinity"),
    "infinity": ("top_p.fc2.weight", (0, (M,), INF4), "holds a NaN or an infinity"),
}


@pytest.mark.parametrize("where", ["heads file", "single file"])
@pytest.mark.parametrize("name", BAD_TENSORS)
def test_bad_tensor(tmp_path, name, where):
    tensor, value, message = BAD_TENSORS[name]
    tensors = default_tensors()
    tensors.pop(tensor, None)
    if value is not None:
        tensors[tensor] = value
    path = tmp_path / "f.gguf"
    if where == "single file":
        _, keys = write_single(path, default_keys(), tensors)
        write(path, keys, {})
    else:
        write(path, default_keys(), tensors)
    with pytest.raises(FormatError, match=message):
        read_heads_gguf(path)


@pytest.mark.parametrize(
    "suffix, value, message",
    [
        ("type", None, "type' is missing"),
        ("shape", None, "shape' is missing"),
        ("data", None, "data' is missing"),
        ("type", (gt.U32, 4), "has the type 4"),
        ("type", (gt.U64, 0), "expected u32"),
        ("shape", (gt.U64, []), "0 dimensions"),
        ("shape", (gt.U64, [1] * 5), "5 dimensions"),
        ("shape", (gt.U64, [(1 << 64) - 1] * 4), "its shape and type need"),
        ("shape", (gt.U32, 4), "expected array of u64"),
        ("data", (gt.U64, [0]), "has 8 bytes, its shape and type need 16"),
        ("data", (gt.U64, [0, 0, 0]), "has 24 bytes, its shape and type need 16"),
        ("type", (gt.U32, 8), "not a multiple of 32 .Q8_0"),
    ],
)
def test_bad_metadata_tensor(tmp_path, suffix, value, message):
    path, keys = write_single(tmp_path / "s.gguf", default_keys(), default_tensors())
    key = f"{fmt.META_TENSOR_PREFIX}temp.fc1.bias.{suffix}"
    keys.pop(key)
    if value is not None:
        keys[key] = value
    with pytest.raises(FormatError, match=message):
        read_heads_gguf(write(path, keys, {}))


def test_padding_must_be_zero(tmp_path):
    path, keys = write_single(tmp_path / "s.gguf", default_keys(), default_tensors())
    keys[f"{fmt.META_TENSOR_PREFIX}temp.fc2.bias.data"] = (gt.U64, [1 << 63])
    with pytest.raises(FormatError, match="padded with bytes that are not zero"):
        read_heads_gguf(write(path, keys, {}))


def test_truncated_heads_file(tmp_path):
    raw = write(tmp_path / "f.gguf", default_keys(), default_tensors()).read_bytes()
    content = len(raw) - 32 + 16  # the last tensor is the 16 bytes of fc1_extra, then padding
    for n in range(content):
        (tmp_path / "f.gguf").write_bytes(raw[:n])
        with pytest.raises(FormatError):
            read_heads_gguf(tmp_path / "f.gguf")
    (tmp_path / "f.gguf").write_bytes(raw[:content])
    assert read_heads_gguf(tmp_path / "f.gguf").spec.has_temp


# ---- comparison ---------------------------------------------------------------------


def tampered(path, old: bytes, new: bytes):
    raw = path.read_bytes()
    assert raw.count(old) == 1
    path.write_bytes(raw.replace(old, new))


@pytest.mark.parametrize("outtype", ["auto", "q8_0", "f16"])
def test_a_changed_weight_is_found(tmp_path, outtype):
    checkpoint = read_checkpoint(make_folder(tmp_path / "heads"))
    path = tmp_path / "f.gguf"
    write_heads(checkpoint, path, outtype=outtype)
    assert verify_file(checkpoint, path)
    stored = read_heads_gguf(path).tensors["top_p.fc1.weight"].data
    tampered(path, stored, stored[:2] + bytes([stored[2] ^ 8, stored[3] ^ 64]) + stored[4:])
    with pytest.raises(FormatError, match=r"top_p.fc1.weight\[0, \d\] differs from the checkpoint by"):
        verify_file(checkpoint, path)


def test_another_checkpoint_is_found(tmp_path):
    first = read_checkpoint(make_folder(tmp_path / "a"))
    path = tmp_path / "f.gguf"
    write_heads(first, path)
    with pytest.raises(FormatError, match="differs from the checkpoint"):
        verify_file(read_checkpoint(make_folder(tmp_path / "b", make_heads(seed=2))), path)
    alone = make_heads(heads=("temp_head",))
    with pytest.raises(FormatError, match="heads of the shape"):
        verify_file(read_checkpoint(make_folder(tmp_path / "c", alone)), path)
    tampered(path, first.sha256.encode(), b"0" * 64)
    with pytest.raises(FormatError, match="autodeco.source.sha256"):
        verify_file(first, path)


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"arch": "qwen2"}, fmt.KEY_ARCH),
        ({"n_embd": 32}, fmt.KEY_N_EMBD),
        ({"n_vocab": 48}, fmt.KEY_N_VOCAB),
        ({"seed": 8}, fmt.KEY_BASE_NORM_SHA256),
        ({"seed": 7}, None),
    ],
)
def test_heads_of_another_base(tmp_path, changes, key):
    """Also a base of the same shape and name, with other weights (seed 8)."""
    checkpoint = read_checkpoint(make_folder(tmp_path / "heads"))
    write_heads(checkpoint, tmp_path / "h.gguf", base=base_info(make_base(tmp_path / "a.gguf")))
    other = base_info(make_base(tmp_path / "b.gguf", **changes))
    if key is None:
        return check_base(read_heads_gguf(tmp_path / "h.gguf"), other)
    with pytest.raises(MismatchError, match=key):
        check_base(read_heads_gguf(tmp_path / "h.gguf"), other)


def base_info(path):
    file, info = open_base(path)
    file.close()
    return info


# ---- show ---------------------------------------------------------------------------


def test_show_of_every_kind(tmp_path):
    checkpoint = read_checkpoint(make_folder(tmp_path / "heads", config=make_config(autodeco_mean_temperature=0.8)))
    base = make_base(tmp_path / "base.gguf")
    write_heads(checkpoint, tmp_path / "h.gguf", outtype="q8_0")
    merge_single_file(checkpoint, base, tmp_path / "m.gguf")
    plain, heads, single = (dict(describe_file(p)) for p in (base, tmp_path / "h.gguf", tmp_path / "m.gguf"))
    assert plain["kind"] == "model" and plain["heads"] == "none" and plain["vocabulary"] == "40"
    assert heads["kind"].startswith("heads file") and heads["temp.fc1.weight"] == "Q8_0 [16, 64], 1088 bytes"
    assert heads["mean temperature"] == "0.8" and heads["mean top-p"] == "not recorded"
    assert single["kind"].startswith("single file") and single["architecture"] == "llama"
    assert single["heads parameters"] == heads["heads parameters"] == str(checkpoint.n_params)
    assert len(single["base tokenizer sha256"]) == 64


def test_show_makes_control_characters_visible(tmp_path):
    path = make_base(tmp_path / "b.gguf", name="evil\x1b[31m\nname")
    text = format_rows(describe_file(path))
    assert "\x1b" not in text and "evil\\x1b[31m\\nname" in text
