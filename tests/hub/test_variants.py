"""Names of GGUF files as repositories have them, and the choice among them."""

from __future__ import annotations

import pytest

from autodeco_edge.errors import UsageError
from autodeco_edge.hub.variants import choose, find_variants, quant_of


@pytest.mark.parametrize(
    "name, quant",
    [
        ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen3-30B-A3B-Instruct-2507-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("llama-3.1-nemotron-nano-8b-v1-q8_0.gguf", "Q8_0"),
        ("gpt-oss-120b-mxfp4-00001-of-00003.gguf", "MXFP4"),
        ("Model.IQ4_XS.gguf", "IQ4_XS"),
        ("model-bf16.gguf", "BF16"),
        ("Q6_K/model-00001-of-00002.gguf", "Q6_K"),
        ("BF16/model-Q4_0.gguf", "Q4_0"),
        ("Qwen3-8B.gguf", ""),
    ],
)
def test_quantisation_in_a_name(name, quant):
    assert quant_of(name) == quant


def test_parts_make_one_model_and_a_missing_part_makes_none():
    names = [f"a/m-Q4_K_M-0000{i}-of-00003.gguf" for i in (3, 1, 2)]
    assert find_variants(names)[0].files == tuple(sorted(names))
    assert find_variants(names[:2]) == [] and find_variants(names[1:2]) == []


def test_what_lies_beside_models_is_none():
    assert (
        find_variants(["mmproj-F16.gguf", "autodeco-M-7B-v1.0.gguf", "imatrix.gguf", "README.md", "x.safetensors"])
        == []
    )


@pytest.mark.parametrize(
    "quants, asked, taken",
    [
        (("BF16", "Q4_K_M", "Q8_0"), None, "Q4_K_M"),
        (("BF16", "Q2_K", "Q8_0"), None, "Q8_0"),
        (("Q5_K_M", "Q2_K"), None, "Q2_K"),  # the first by name
        (("Q4_K_M", "Q2_K"), "q2_k", "Q2_K"),
        (("UD-Q4_K_XL", "Q4_K_M"), "Q4_K_XL", "UD-Q4_K_XL"),
        (("Q4_K_M", "Q2_K"), "m-Q2_K.gguf", "Q2_K"),
    ],
)
def test_choice(quants, asked, taken):
    assert choose(find_variants(f"m-{quant}.gguf" for quant in quants), asked, "user/repo").quant == taken


def test_a_quantisation_that_is_not_there_lists_those_that_are():
    with pytest.raises(UsageError, match="no quantisation 'Q3_K' in it; there are Q2_K, Q4_K_M"):
        choose(find_variants(["m-Q4_K_M.gguf", "m-Q2_K.gguf"]), "Q3_K", "user/repo")
