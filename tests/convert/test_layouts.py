"""Every layout of a checkpoint, in every type, gives the same heads bit for bit."""

import json
from pathlib import Path

import numpy as np
import pytest

from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.errors import AutodecoError, FormatError, MismatchError, MissingInputError
from autodeco_edge.gguf.keys import FEATURES_BASIC, FEATURES_ENHANCED
from convert_makers import N_EMBD, N_HIDDEN, make_config, make_folder, make_heads, save_safetensors, values_of
from tests.support.weights import weights_of


def base_tensors(prefix=""):
    """A few tensors of a base model, as a merged checkpoint carries them."""
    names = (f"{prefix}model.embed_tokens.weight", f"{prefix}model.norm.weight", f"{prefix}lm_head.weight")
    return {name: ("F16", (4, 2), bytes(16)) for name in names}


def write_index(folder: Path, shards: dict[str, dict], name="model.safetensors.index.json"):
    weight_map = {key: shard for shard, tensors in shards.items() for key in tensors}
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def split_in_two(tensors):
    names = sorted(tensors)
    return {n: tensors[n] for n in names[::2]}, {n: tensors[n] for n in names[1::2]}


def current(folder, tensors):
    make_folder(folder, tensors, make_config(use_enhanced_features=None))


def first_public(folder, tensors):
    save_safetensors(folder / "autodeco_heads.safetensors", tensors)
    config = make_config(use_enhanced_features=None, enable_top_p_head=None, train_temp=True, train_top_p=True)
    (folder / "config.json").write_text(json.dumps(config))


def first_public_sharded(folder, tensors):
    a, b = split_in_two(tensors)
    shards = {"autodeco_heads-00001-of-00002.safetensors": a, "autodeco_heads-00002-of-00002.safetensors": b}
    for name, part in shards.items():
        save_safetensors(folder / name, part)
    write_index(folder, shards, "autodeco_heads.safetensors.index.json")


def nemo(folder, tensors):
    save_safetensors(folder / "model.safetensors", tensors)
    (folder / "weights").mkdir()
    (folder / "weights" / "common.pt").write_bytes(b"\x80\x02}q\x00.")


def nemo_adapter_prefix(folder, tensors):
    save_safetensors(folder / "model.safetensors", {f"adapter.{n}": t for n, t in tensors.items()})


def nemo_module_prefix(folder, tensors):
    save_safetensors(folder / "model.safetensors", {f"module.adapter.{n}": t for n, t in tensors.items()})


def merged(folder, tensors, prefix="llm."):
    a, b = split_in_two(tensors)
    base = base_tensors(prefix)
    first, last = (dict(list(base.items())[i::2]) for i in range(2))
    shards = {"model-00001-of-00002.safetensors": first | a, "model-00002-of-00002.safetensors": last | b}
    for name, part in shards.items():
        save_safetensors(folder / name, part)
    write_index(folder, shards)


def old_merged(folder, tensors):
    merged(folder, tensors, prefix="")


def split_with_dangling_index(folder, tensors):
    """The official split: one heads file beside the old index of the merged model."""
    save_safetensors(folder / "model.safetensors", tensors)
    shards = {"model-00001-of-00002.safetensors": base_tensors("llm."), "model-00002-of-00002.safetensors": tensors}
    write_index(folder, shards)


LAYOUTS = [current, first_public, first_public_sharded, nemo, nemo_adapter_prefix, nemo_module_prefix]
LAYOUTS += [merged, old_merged, split_with_dangling_index]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("n_extra", [5, 1])
def test_every_layout_gives_the_same_bits(tmp_path, layout, dtype, n_extra):
    tensors = make_heads(dtype, n_extra)
    layout(tmp_path, tensors)
    checkpoint = read_checkpoint(tmp_path)
    assert {n: (t.dtype, t.shape, t.data) for n, t in checkpoint.tensors.items()} == tensors
    assert checkpoint.spec.n_embd == N_EMBD and checkpoint.spec.n_hidden == N_HIDDEN
    assert checkpoint.spec.features == (FEATURES_ENHANCED if n_extra == 5 else FEATURES_BASIC)
    weights = weights_of(checkpoint)
    fc1 = values_of(tensors["top_p_head.mlp.0.weight"])
    assert np.array_equal(weights.top_p.fc1_weight, fc1[:, :N_EMBD])
    assert np.array_equal(weights.top_p.fc1_extra, fc1[:, N_EMBD:])
    assert weights.temp.fc1_extra is None
    assert np.array_equal(weights.temp.fc2_weight, values_of(tensors["temp_head.mlp.2.weight"])[0])
    assert weights.temp.fc2_bias == values_of(tensors["temp_head.mlp.2.bias"])[0]


@pytest.mark.parametrize("present", ["temp_head", "top_p_head"])
@pytest.mark.parametrize("n_extra", [5, 1])
@pytest.mark.parametrize("config", [None, False])
def test_one_head_alone(tmp_path, present, n_extra, config):
    tensors = make_heads(n_extra=n_extra, heads=(present,))
    config = make_config(use_enhanced_features=n_extra == 5) if config is None else config
    checkpoint = read_checkpoint(make_folder(tmp_path, tensors, config))
    assert checkpoint.spec.n_embd == N_EMBD
    assert (checkpoint.spec.has_temp, checkpoint.spec.has_top_p) == (present == "temp_head", present == "top_p_head")
    assert len(checkpoint.spec.features) == (n_extra if present == "top_p_head" else 0)
    weights = weights_of(checkpoint)
    assert (weights.temp is None, weights.top_p is None) == (present != "temp_head", present != "top_p_head")


def test_lone_top_p_of_ambiguous_width_takes_the_callers_word(tmp_path):
    tensors = make_heads(heads=("top_p_head",), n_embd=63)
    folder = make_folder(tmp_path, tensors, False)
    with pytest.raises(FormatError, match="hidden size unknown"):
        read_checkpoint(folder)
    assert read_checkpoint(folder, n_embd=63).spec.n_embd == 63


def test_a_single_file_an_index_and_a_string_are_accepted(tmp_path):
    folder = make_folder(tmp_path / "AutoDeco-X-8B")
    by_file = read_checkpoint(str(folder / "model.safetensors"))
    assert by_file.sha256 == read_checkpoint(folder).sha256
    assert by_file.config.arch == "llama" and by_file.label == "AutoDeco-X-8B"
    first_public_sharded(tmp_path, make_heads())
    assert read_checkpoint(tmp_path / "autodeco_heads.safetensors.index.json").sha256 == by_file.sha256


def test_torch_written_file(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    made = make_heads("BF16")
    tensors = {n: torch.from_numpy(values_of(t)).to(torch.bfloat16) for n, t in made.items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert {n: t.data for n, t in read_checkpoint(tmp_path).tensors.items()} == {n: t[2] for n, t in made.items()}


def test_same_tensor_twice(tmp_path):
    tensors = make_heads()
    make_folder(tmp_path, tensors)
    save_safetensors(tmp_path / "autodeco_heads.safetensors", {f"adapter.{n}": t for n, t in tensors.items()})
    assert read_checkpoint(tmp_path).spec.n_embd == N_EMBD
    save_safetensors(tmp_path / "autodeco_heads.safetensors", make_heads(seed=2))
    with pytest.raises(FormatError, match="twice with different data"):
        read_checkpoint(tmp_path)


def changed(name, dtype=None, shape=None, data=None):
    def change(tensors):
        old = tensors[name]
        tensors[name] = (dtype or old[0], shape or old[1], old[2] if data is None else data)

    return change


def without(name):
    return lambda tensors: tensors.pop(name)


def nan_in(name):
    return lambda tensors: tensors.update({name: (*tensors[name][:2], b"\xc0\x7f" + tensors[name][2][2:])})


BAD_TENSORS = {
    "missing bias": (without("temp_head.mlp.0.bias"), "'temp_head.mlp.0.bias' is missing"),
    "missing fc1": (without("top_p_head.mlp.0.weight"), "'top_p_head.mlp.0.weight' is missing"),
    "short bias": (changed("temp_head.mlp.0.bias", shape=(8,), data=bytes(16)), r"shape \[8\], expected \[16\]"),
    "flat fc2": (changed("temp_head.mlp.2.weight", shape=(16,)), r"temp_head.mlp.2.weight: shape \[16\]"),
    "fc1 of one dimension": (changed("temp_head.mlp.0.weight", shape=(1024,)), "expected .hidden units, inputs."),
    "width 3": (changed("top_p_head.mlp.0.weight", shape=(16, 67), data=bytes(16 * 67 * 2)), "3 inputs beyond"),
    "other n_hidden": (changed("top_p_head.mlp.0.weight", shape=(8, 69), data=bytes(8 * 69 * 2)), r"shape \[8, 69\]"),
    "integer": (changed("temp_head.mlp.2.bias", dtype="I16"), "allowed: BF16, F16, F32"),
    "not a number": (nan_in("temp_head.mlp.0.weight"), "NaN or an infinity"),
    "a third layer": (lambda t: t.update({"temp_head.mlp.4.weight": ("BF16", (1,), b"\0\0")}), "unknown tensor"),
    "nothing": (lambda t: t.clear() or t.update(base_tensors()), "no AutoDeco heads"),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_wrong_tensors(tmp_path, name, monkeypatch):
    monkeypatch.setitem(__import__("convert_makers").SAFETENSORS_DTYPE, "I16", "int16")
    change, message = BAD_TENSORS[name]
    tensors = make_heads()
    change(tensors)
    with pytest.raises(FormatError, match=message) as caught:
        read_checkpoint(make_folder(tmp_path, tensors, False))
    assert "\n" not in str(caught.value)


def test_shard_of_the_index_is_missing(tmp_path):
    merged(tmp_path, make_heads())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MissingInputError, match="model-00002-of-00002.safetensors"):
        read_checkpoint(tmp_path)


def test_wrong_width_for_the_base(tmp_path):
    with pytest.raises(MismatchError, match="hidden size of 64, but the base model has 128"):
        read_checkpoint(make_folder(tmp_path, config=False), n_embd=128)


CONTRADICTIONS = {
    "hidden_size": (make_config(hidden_size=128), "contradict"),
    "all widths": (make_config(hidden_size=128, temperature_hidden_size=128, top_p_hidden_size=128), "hidden size 128"),
    "features": (make_config(use_enhanced_features=False), "use_enhanced_features is false"),
    "mean T": (make_config(autodeco_mean_temperature=2.5), "autodeco_mean_temperature is 2.5"),
    "mean P": (make_config(autodeco_mean_top_p="0.9"), "autodeco_mean_top_p is '0.9'"),
    "not JSON": ("{", "not valid JSON"),
    "a list": ("[]", "not a JSON object"),
    "deep": ("[" * 100_000, "not valid JSON"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_config_contradicts(tmp_path, name):
    config, message = CONTRADICTIONS[name]
    with pytest.raises(FormatError, match=message):
        read_checkpoint(make_folder(tmp_path, config=config))


@pytest.mark.parametrize(
    "config, arch",
    [
        (make_config(base_model_type="qwen3_moe"), "qwen3moe"),
        (make_config(base_model_type="autodeco"), None),
        (make_config(base_model_type=None), None),
        (make_config(base_model_type=None, model_type="gpt_oss"), "gpt-oss"),
        (make_config(base_model_type=17, hidden_size="64", vocab_size=True, top_p_hidden_size=None), None),
        ({"top_p_hidden_size": 64, "temperature_hidden_size": 64, "rope": float("inf")}, None),
        ({}, None),
        (False, None),
    ],
)
def test_odd_configs_are_advisory(tmp_path, config, arch):
    checkpoint = read_checkpoint(make_folder(tmp_path, config=config))
    assert checkpoint.config.arch == arch and checkpoint.spec.n_embd == N_EMBD


def test_means_notes_names_and_license(tmp_path):
    config = make_config(autodeco_mean_temperature=0.75, autodeco_mean_top_p=1, enable_top_p_head=False)
    folder = make_folder(tmp_path, config=config)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# card\n")
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.config.mean_temperature, checkpoint.config.mean_top_p) == (0.75, 1.0)
    assert checkpoint.config.base_name == "Tiny-Llama-8B"
    assert checkpoint.license == "apache-2.0"
    assert len(checkpoint.notes) == 1 and "top-p head" in checkpoint.notes[0]


def test_places_that_hold_nothing(tmp_path, monkeypatch):
    # Not the environment variable: huggingface_hub reads it once, and tests of downloads follow in this process.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "heads.gguf").write_bytes(b"GGUF")
    for place in ("empty", "nowhere", "a/b/c", "\0", "x" * 5000, "../../etc/passwd-not", "heads.gguf"):
        with pytest.raises(AutodecoError) as caught:
            read_checkpoint(place)
        assert "\n" not in str(caught.value)


def test_hub_id_without_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def offline(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(MissingInputError, match="could not be fetched from Hugging Face: no route; check"):
        read_checkpoint("user/AutoDeco-Nothing")


def test_hub_id_fetches_only_the_shards_with_heads(tmp_path, monkeypatch):
    merged(tmp_path, make_heads())
    tensors = make_heads()
    shards = {"model-00001-of-00002.safetensors": base_tensors("llm."), "model-00002-of-00002.safetensors": tensors}
    write_index(tmp_path, shards)
    save_safetensors(tmp_path / "model-00002-of-00002.safetensors", tensors)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    asked = []

    def snapshot(repo, allow_patterns, endpoint):
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert read_checkpoint("user/AutoDeco-Repo-7B").label == "AutoDeco-Repo-7B"
    assert asked[0] == ["*.json", "README.md"] and asked[1][2:] == ["model-00002-of-00002.safetensors"]
    write_index(tmp_path, {"../../evil.safetensors": tensors})
    with pytest.raises(FormatError, match="not a plain"):
        read_checkpoint("user/AutoDeco-Repo-7B")
