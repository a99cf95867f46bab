"""The heads file: what it says, that any GGUF reader reads it, that its bytes never vary."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autodeco_edge.convert.base import open_base
from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.export import default_heads_name, write_heads
from autodeco_edge.convert.verify import read_heads_gguf, verify_file
from autodeco_edge.errors import MismatchError, OutputError, UsageError
from autodeco_edge.gguf import keys as fmt
from autodeco_edge.gguf.reader import GGUFFile
from convert_makers import N_EMBD, N_HIDDEN, N_VOCAB, make_base, make_config, make_folder, make_heads, values_of
from tests.support.weights import weights_of


def base_info(path):
    file, info = open_base(path)
    file.close()
    return info


@pytest.fixture
def checkpoint(tmp_path):
    return read_checkpoint(make_folder(tmp_path / "AutoDeco-Tiny-8B"))


def test_keys_and_tensors_as_gguf_reads_them(tmp_path):
    import gguf

    tensors = make_heads("BF16")
    folder = make_folder(
        tmp_path / "heads", tensors, make_config(autodeco_mean_temperature=0.8, autodeco_mean_top_p=0.9)
    )
    base = make_base(tmp_path / "base.gguf")
    checkpoint = read_checkpoint(folder)
    write_heads(checkpoint, tmp_path / "out.gguf", base=base_info(base))
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    base_reader = gguf.GGUFReader(base)
    tokens = base_reader.fields["tokenizer.ggml.tokens"]
    raw_tokens = b"".join(len(t).to_bytes(8, "little") + t.encode() for t in tokens.contents())
    norm = next(t for t in base_reader.tensors if t.name == "output_norm.weight")
    assert keys == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "autodeco",
        "general.name": "AutoDeco heads for Tiny Llama 8B",
        "general.base_model.count": 1,
        "general.base_model.0.name": "Tiny Llama 8B",
        "autodeco.format_version": 1,
        "autodeco.embedding_length": N_EMBD,
        "autodeco.hidden_length": N_HIDDEN,
        "autodeco.vocab_size": N_VOCAB,
        "autodeco.temperature.scale": 2.0,
        "autodeco.top_p.features": list(fmt.FEATURES_ENHANCED),
        "autodeco.mean_temperature": float(np.float32(0.8)),
        "autodeco.mean_top_p": float(np.float32(0.9)),
        "autodeco.source.sha256": checkpoint.sha256,
        "autodeco.base.tokenizer.sha256": hashlib.sha256(raw_tokens).hexdigest(),
        "autodeco.base.output_norm.sha256": hashlib.sha256(norm.data.tobytes()).hexdigest(),
    }
    shapes = {t.name: (t.tensor_type.name, [int(n) for n in t.shape]) for t in reader.tensors}
    f32 = {"fc1.bias": [N_HIDDEN], "fc2.weight": [N_HIDDEN], "fc2.bias": [1]}
    expected = {f"autodeco.{h}.{n}": ("F32", s) for h in ("temp", "top_p") for n, s in f32.items()}
    expected |= {f"autodeco.{h}.fc1.weight": ("BF16", [N_EMBD, N_HIDDEN]) for h in ("temp", "top_p")}
    expected["autodeco.top_p.fc1_extra.weight"] = ("F32", [5, N_HIDDEN])
    assert shapes == expected
    by_name = {t.name: t for t in reader.tensors}
    wide = by_name["autodeco.temp.fc1.weight"].data.view(np.uint16)
    assert wide.tobytes() == tensors["temp_head.mlp.0.weight"][2]
    extra = by_name["autodeco.top_p.fc1_extra.weight"].data
    assert np.array_equal(extra, values_of(tensors["top_p_head.mlp.0.weight"])[:, N_EMBD:])


@pytest.mark.parametrize("source", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("outtype", ["auto", "f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("heads", [("temp_head", "top_p_head"), ("temp_head",), ("top_p_head",)], ids="+".join)
def test_every_type_verifies(tmp_path, source, outtype, heads):
    config = make_config(use_enhanced_features=None)
    folder = make_folder(tmp_path / "heads", make_heads(source, 1, heads), config)
    checkpoint = read_checkpoint(folder)
    written = write_heads(checkpoint, tmp_path / "out.gguf", outtype=outtype)
    assert written.written and written.n_bytes == (tmp_path / "out.gguf").stat().st_size
    rows = verify_file(checkpoint, tmp_path / "out.gguf")
    assert len(rows) == (4 if heads == ("temp_head",) else 5 if len(heads) == 1 else 9)
    wide = source if outtype == "auto" else outtype.upper()
    assert {r.stored_type for r in rows if r.name.endswith(".fc1.weight")} == {wide}
    exact = wide in (source, "F32")
    assert all(r.max_error == 0 for r in rows) or not exact
    ours, loaded = weights_of(checkpoint), weights_of(read_heads_gguf(tmp_path / "out.gguf"))
    assert ours.spec == loaded.spec
    for a, b in ((ours.temp, loaded.temp), (ours.top_p, loaded.top_p)):
        assert (a is None) == (b is None)
        if a is not None:
            assert np.array_equal(a.fc2_weight, b.fc2_weight) and a.fc2_bias == b.fc2_bias
            assert np.array_equal(a.fc1_bias, b.fc1_bias)
            assert not exact or np.array_equal(a.fc1_weight, b.fc1_weight)


def test_bytes_do_not_vary(tmp_path):
    """Two processes with different hash seeds, in different folders, write the same files."""
    folder = make_folder(tmp_path / "heads")
    base = make_base(tmp_path / "base.gguf")
    script = (
        "import sys; from pathlib import Path; from autodeco_edge.convert.checkpoint import read_checkpoint\n"
        "from autodeco_edge.convert.base import open_base; from autodeco_edge.convert.export import write_heads\n"
        "from autodeco_edge.convert.merge import merge_single_file\n"
        "c = read_checkpoint(sys.argv[1]); out = Path(sys.argv[3]); out.mkdir()\n"
        "write_heads(c, out / 'h.gguf', base=open_base(sys.argv[2])[1], outtype='q8_0')\n"
        "merge_single_file(c, sys.argv[2], out / 'm.gguf')\n"
    )
    digests = set()
    for seed in ("1", "2"):
        out = tmp_path / f"out{seed}"
        env = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script, str(folder), str(base), str(out)], check=True, env=env)
        digests.add(tuple(hashlib.sha256((out / n).read_bytes()).hexdigest() for n in ("h.gguf", "m.gguf")))
        assert sorted(os.listdir(out)) == ["h.gguf", "m.gguf"]
    assert len(digests) == 1
    assert str(tmp_path).encode() not in (out / "h.gguf").read_bytes()


def test_means_options_win_and_are_checked(tmp_path):
    folder = make_folder(tmp_path / "heads", config=make_config(autodeco_mean_temperature=0.8))
    checkpoint = read_checkpoint(folder)
    out = tmp_path / "out.gguf"
    assert write_heads(checkpoint, out, mean_temperature=1.5, mean_top_p=0.5).means.temperature == 1.5
    assert read_heads_gguf(out).means.top_p == 0.5
    write_heads(checkpoint, out)
    assert read_heads_gguf(out).means.top_p is None
    for bad in (
        {"mean_temperature": 2.1},
        {"mean_temperature": 0.0},
        {"mean_top_p": 1.01},
        {"mean_top_p": float("nan")},
    ):
        with pytest.raises(UsageError, match="allowed are values above 0"):
            write_heads(checkpoint, out, **bad)


def test_architecture_and_vocabulary(tmp_path):
    unknown = read_checkpoint(make_folder(tmp_path / "a", config=make_config(base_model_type="autodeco")))
    with pytest.raises(UsageError, match="--base"):
        write_heads(unknown, tmp_path / "out.gguf")
    odd = read_checkpoint(make_folder(tmp_path / "b", config=make_config(base_model_type="novel")))
    with pytest.raises(UsageError, match="'novel', which is not known"):
        write_heads(odd, tmp_path / "out.gguf")
    base = base_info(make_base(tmp_path / "base.gguf"))
    write_heads(odd, tmp_path / "out.gguf", base=base)
    assert read_heads_gguf(tmp_path / "out.gguf").arch == "llama"
    blank = read_checkpoint(make_folder(tmp_path / "c", config=make_config(vocab_size=None)))
    write_heads(blank, tmp_path / "out.gguf")
    assert read_heads_gguf(tmp_path / "out.gguf").n_vocab is None
    for changes, what in (
        ({"base_model_type": "qwen2"}, "architecture 'llama', but .* 'qwen2'"),
        ({"vocab_size": 41}, "vocabulary size 40, but .* 41"),
    ):
        other = read_checkpoint(make_folder(tmp_path / "d", config=make_config(**changes)))
        with pytest.raises(MismatchError, match=what):
            write_heads(other, tmp_path / "never.gguf", base=base)
    narrow = base_info(make_base(tmp_path / "narrow.gguf", n_embd=32))
    with pytest.raises(MismatchError, match="hidden size 32, but .* 64"):
        write_heads(blank, tmp_path / "never.gguf", base=narrow)
    assert not (tmp_path / "never.gguf").exists()


def test_outtype_errors(tmp_path, checkpoint):
    with pytest.raises(UsageError, match="allowed: auto, f32, f16, bf16, q8_0"):
        write_heads(checkpoint, tmp_path / "x.gguf", outtype="q4_0")
    odd = read_checkpoint(make_folder(tmp_path / "odd", make_heads(n_embd=40), make_config(hidden_size=40,
        temperature_hidden_size=40, top_p_hidden_size=40)))  # fmt: skip
    with pytest.raises(UsageError, match="temp.fc1.weight: q8_0 needs rows of a multiple of 32, these have 40"):
        write_heads(odd, tmp_path / "x.gguf", outtype="q8_0")
    assert not (tmp_path / "x.gguf").exists()


def test_dry_run_writes_nothing(tmp_path, checkpoint):
    written = write_heads(checkpoint, tmp_path / "x.gguf", dry_run=True)
    assert not written.written and len(written.tensors) == 9 and not (tmp_path / "x.gguf").exists()
    assert write_heads(checkpoint, tmp_path / "x.gguf").n_bytes == written.n_bytes


def test_an_input_is_never_the_output(tmp_path, checkpoint):
    base = base_info(make_base(tmp_path / "base.gguf"))
    os.symlink(tmp_path / "base.gguf", tmp_path / "link.gguf")
    for target in (tmp_path / "base.gguf", tmp_path / "link.gguf", checkpoint.files[0]):
        before = target.read_bytes()
        with pytest.raises(UsageError, match="this is an input file"):
            write_heads(checkpoint, target, base=base)
        assert target.read_bytes() == before


def test_places_that_cannot_be_written(tmp_path, checkpoint):
    (tmp_path / "file").write_text("")
    for target in (
        tmp_path,
        tmp_path / "no" / "x.gguf",
        tmp_path / "file" / "x.gguf",
        Path("/dev/null"),
        Path("/proc/x.gguf"),
    ):
        with pytest.raises(OutputError):
            write_heads(checkpoint, target)
    for target in (Path("a\0b"), tmp_path / ("n" * 300)):
        with pytest.raises(OutputError):
            write_heads(checkpoint, target)
    assert sorted(os.listdir(tmp_path)) == ["AutoDeco-Tiny-8B", "file"]


@pytest.mark.parametrize(
    "label, base_name, expected",
    [
        ("AutoDeco-R1-Distill-Qwen-7B", None, "autodeco-R1-Distill-Qwen-7B-v1.0.gguf"),
        ("heads", "Qwen3-30B-A3B-Instruct-2507", "autodeco-Qwen3-Instruct-2507-30B-A3B-v1.0.gguf"),
        ("autodeco_gpt-oss-20b", None, "autodeco-gpt-oss-20b-v1.0.gguf"),
        ("heads", None, "autodeco-heads-v1.0.gguf"),
        ("my heads/../x", None, "autodeco-my-heads-..-x-v1.0.gguf"),
    ],
)
def test_default_name(tmp_path, label, base_name, expected):
    from dataclasses import replace

    config = make_config(base_model_name_or_path=base_name)
    checkpoint = read_checkpoint(make_folder(tmp_path / "x", config=config))
    name = default_heads_name(replace(checkpoint, label=label), None)
    assert name == expected and "/" not in name


def test_default_name_from_the_base(tmp_path, checkpoint):
    def labels(writer):
        writer.add_basename("Tiny")
        writer.add_size_label("8x7B")

    assert (
        default_heads_name(checkpoint, base_info(make_base(tmp_path / "a.gguf", extra=labels)))
        == "autodeco-Tiny-8x7B-v1.0.gguf"
    )
    assert (
        default_heads_name(checkpoint, base_info(make_base(tmp_path / "b.gguf"))) == "autodeco-Tiny-Llama-8B-v1.0.gguf"
    )


def test_stock_gguf_library_opens_it(tmp_path, checkpoint):
    write_heads(checkpoint, tmp_path / "x.gguf")
    with GGUFFile(tmp_path / "x.gguf") as file:
        assert file.data_offset % 32 == 0 and file.version == 3
