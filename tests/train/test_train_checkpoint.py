"""Official files: written, read back unchanged, and refused where they are wrong."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from autodeco_edge.errors import FormatError, MismatchError, MissingInputError, OutputError, UsageError
from autodeco_edge.gguf.keys import FEATURES_BASIC, FEATURES_ENHANCED, HeadSpec
from autodeco_edge.train.checkpoint import autodeco_config, load_heads, refuse_output, save_heads
from autodeco_edge.train.model import AutoDecoForCausalLM
from autodeco_edge.train.modules import AutoDecoHeads

BASE = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "vocab_size": 320,
    "rope_theta": 1e6,
    "architectures": ["Qwen2ForCausalLM"],
}


def make_heads(has_temp=True, has_top_p=True, features=FEATURES_ENHANCED, n_embd=64):
    heads = AutoDecoHeads(HeadSpec(n_embd, 256, features if has_top_p else (), has_temp, has_top_p))
    return heads.reset_parameters(torch.Generator().manual_seed(1))


def config_of(heads, **kwargs):
    return autodeco_config(BASE, heads.spec, "org/base", **kwargs)


def test_files_are_the_official_ones(tmp_path):
    heads = make_heads()
    save_heads(tmp_path / "out", heads, config_of(heads, mean_temperature=0.8, mean_top_p=0.9))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert len(file.keys()) == 8
        assert {file.get_tensor(k).dtype for k in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {
        **BASE,
        "model_type": "autodeco",
        "architectures": ["AutoDecoModelForCausalLM"],
        "base_model_type": "qwen2",
        "base_model_name_or_path": "org/base",
        "enable_temperature_head": True,
        "enable_top_p_head": True,
        "use_enhanced_features": True,
        "temperature_hidden_size": 64,
        "top_p_hidden_size": 64,
        "autodeco_mean_temperature": 0.8,
        "autodeco_mean_top_p": 0.9,
    }


@pytest.mark.parametrize(
    "dtype, torch_dtype", (("bf16", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32))
)
def test_round_trip_is_exact_in_the_saved_dtype(tmp_path, dtype, torch_dtype):
    heads = make_heads()
    save_heads(tmp_path, heads, config_of(heads), dtype)
    loaded = load_heads(tmp_path, n_embd=64)
    assert loaded.enable_temperature and loaded.enable_top_p
    for name, tensor in heads.state_dict().items():
        assert torch.equal(loaded.heads.state_dict()[name], tensor.to(torch_dtype).float())


@pytest.mark.parametrize("prefix", ("", "adapter.", "module.adapter."))
@pytest.mark.parametrize("name", ("model.safetensors", "autodeco_heads.safetensors"))
def test_official_layouts_load(tmp_path, name, prefix):
    state = {prefix + k: v.bfloat16() for k, v in make_heads().state_dict().items()}
    save_file({**state, "llm.model.norm.weight": torch.ones(64)}, tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        assert load_heads(path).heads.spec == HeadSpec(64, 256, FEATURES_ENHANCED, True, True)


def test_heads_split_over_shards_and_first_version_flags(tmp_path):
    state = make_heads(features=FEATURES_BASIC).state_dict()
    save_file({k: v for k, v in state.items() if "temp" in k}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({k: v for k, v in state.items() if "top_p" in k}, tmp_path / "model-00002-of-00002.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"train_temp": False, "train_top_p": True}))
    loaded = load_heads(tmp_path)
    assert loaded.heads.spec.features == FEATURES_BASIC
    assert not loaded.enable_temperature and loaded.enable_top_p


@pytest.mark.parametrize("has_temp, has_top_p", ((True, False), (False, True)))
def test_one_head_alone(tmp_path, has_temp, has_top_p):
    heads = make_heads(has_temp, has_top_p)
    config = config_of(heads)
    assert (config["enable_temperature_head"], config["enable_top_p_head"]) == (has_temp, has_top_p)
    save_heads(tmp_path, heads, config)
    assert load_heads(tmp_path).heads.spec == heads.spec


def broken(name):
    """state dict -> a state dict that is wrong in one way."""
    state = make_heads().state_dict()
    if name == "missing tensor":
        del state["temp_head.mlp.2.bias"]
    elif name == "no heads":
        state = {"model.norm.weight": torch.ones(4)}
    elif name == "extra inputs":
        state["top_p_head.mlp.0.weight"] = torch.zeros(256, 67)
    elif name == "wrong shape":
        state["temp_head.mlp.2.weight"] = torch.zeros(2, 256)
    elif name == "hidden widths":
        state |= {k: v for k, v in AutoDecoHeads(HeadSpec(64, 8, (), True, False)).state_dict().items()}
    elif name == "unknown tensor":
        state["temp_head.norm.weight"] = torch.ones(64)
    elif name == "dtype":
        state["temp_head.mlp.0.bias"] = torch.zeros(256, dtype=torch.int32)
    elif name == "not finite":
        state["temp_head.mlp.0.bias"] = torch.full((256,), float("nan"))
    return state


@pytest.mark.parametrize(
    "name, message",
    (
        ("missing tensor", "'temp_head.mlp.2.bias' is missing"),
        ("no heads", "no AutoDeco heads"),
        ("extra inputs", "3 inputs beyond"),
        ("wrong shape", "temp_head.mlp.2.weight: shape"),
        ("hidden widths", "shape .*, expected"),
        ("unknown tensor", "unknown tensor 'temp_head.norm.weight'"),
        ("dtype", "I32"),
        ("not finite", "a NaN or an infinity"),
    ),
)
def test_wrong_tensors_are_named(tmp_path, name, message):
    save_file(broken(name), tmp_path / "model.safetensors")
    with pytest.raises(FormatError, match=message):
        load_heads(tmp_path)


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(MissingInputError, match="no such file"):
        load_heads(tmp_path / "none")
    with pytest.raises(MissingInputError, match="no such file"):
        load_heads("org/none")  # a path that is not there is not looked up on a hub
    with pytest.raises(MissingInputError, match="no .safetensors"):
        load_heads(tmp_path)
    (tmp_path / "autodeco_heads.bin").write_bytes(b"\x80\x02")
    with pytest.raises(FormatError, match="pickle"):
        load_heads(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(FormatError, match="the safetensors header claims"):
        load_heads(tmp_path)


def test_contradictions_are_refused(tmp_path):
    heads = make_heads()
    save_heads(tmp_path, heads, {**config_of(heads), "use_enhanced_features": False})
    with pytest.raises(FormatError, match="use_enhanced_features is false"):
        load_heads(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(FormatError, match="not valid JSON"):
        load_heads(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(MismatchError, match="the base model has 128"):
        load_heads(tmp_path, n_embd=128)
    twice = make_heads().state_dict() | {"temp_head.mlp.2.bias": torch.ones(1)}
    save_file(twice, tmp_path / "other.safetensors")
    with pytest.raises(FormatError, match="appears twice"):
        load_heads(tmp_path)


def test_a_failed_save_leaves_the_old_files(tmp_path):
    heads = make_heads()
    save_heads(tmp_path, heads, config_of(heads))
    before = (tmp_path / "model.safetensors").read_bytes()
    with torch.no_grad():
        heads.temp_head.mlp[0].bias[0] = float("inf")
    with pytest.raises(FormatError, match="not finite"):
        save_heads(tmp_path, heads, config_of(heads))
    with pytest.raises(UsageError, match="bf16, f16, f32"):
        save_heads(tmp_path, heads, {}, "q8_0")
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_output_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    heads = make_heads()
    with pytest.raises(OutputError, match="cannot write here"):
        save_heads(tmp_path / "file" / "out", heads, config_of(heads))


def test_wrapper_reads_what_was_saved(tmp_path, base_dir):
    heads = make_heads()
    config = autodeco_config(json.loads((base_dir / "config.json").read_text()), heads.spec, str(base_dir))
    save_heads(tmp_path, heads, config, "f32")
    model = AutoDecoForCausalLM.from_pretrained(base_dir, tmp_path, dtype=torch.float32)
    for name, tensor in heads.state_dict().items():
        assert torch.equal(model.heads.state_dict()[name], tensor)
    assert model.heads_config.model_type == "llama"


@pytest.mark.parametrize("field, value", (("base_model_type", "qwen2"), ("vocab_size", 1000)))
def test_wrapper_refuses_heads_of_another_base(tmp_path, base_dir, field, value):
    heads = make_heads()
    save_heads(tmp_path, heads, {"base_model_type": "autodeco", "vocab_size": 320, field: value})
    with pytest.raises(MismatchError, match=f"{field} {value}"):
        AutoDecoForCausalLM.from_pretrained(base_dir, tmp_path)


# ---- an output folder that holds something else -------------------------------------------------


def test_output_that_would_cost_a_model_or_an_input(tmp_path):
    """A folder with base weights, the folder of --init (also by a link), the data itself."""
    base, heads, empty = (tmp_path / name for name in ("base", "heads", "empty"))
    for folder in (base, heads, empty):
        folder.mkdir()
    save_file({"model.embed_tokens.weight": torch.zeros(2, 2)}, base / "model.safetensors")
    save_heads(heads, make_heads(), config_of(make_heads()))
    (tmp_path / "link").symlink_to(heads)
    data = tmp_path / "data.jsonl"
    data.write_text("{}\n")
    for output, inputs in (
        (base, ()),
        (base, (base,)),
        (heads, (heads,)),
        (tmp_path / "link", (heads,)),
        (data, (data,)),
    ):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(UsageError):
            refuse_output(output, inputs)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    refuse_output(heads, (base, None))  # heads of an earlier run may be trained anew
    refuse_output(empty, (base, heads, data))


@pytest.mark.parametrize(
    ("temp", "top_p", "features"), [(True, True, 5), (True, True, 1), (False, True, 5), (True, False, 0)]
)
def test_heads_of_a_gguf_are_those_of_the_checkpoint_it_was_made_from(tmp_path, temp, top_p, features):
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.export import write_heads
    from autodeco_edge.train.base import fresh_heads

    names = {5: FEATURES_ENHANCED, 1: FEATURES_BASIC, 0: ()}[features]
    heads = fresh_heads(HeadSpec(64, 16, names, temp, top_p), 3)
    config = autodeco_config({"model_type": "qwen2", "vocab_size": 99}, heads.spec, "x", 0.5, 0.75)
    save_heads(tmp_path / "h", heads, config, "f32")
    write_heads(read_checkpoint(tmp_path / "h"), tmp_path / "h.gguf")
    found = load_heads(tmp_path / "h.gguf", n_embd=64)
    assert found.heads.spec == heads.spec and found.config.n_vocab == 99
    assert (found.config.mean_temperature, found.config.mean_top_p) == (0.5 if temp else None, 0.75 if top_p else None)
    for name, value in heads.state_dict().items():
        assert torch.equal(found.heads.state_dict()[name], value), name
    with pytest.raises(MismatchError, match="hidden size"):
        load_heads(tmp_path / "h.gguf", n_embd=32)
