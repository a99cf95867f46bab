"""Fixtures of the PyTorch tests: golden heads, five families of tiny random bases, a tiny tokenizer."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import transformers  # noqa: E402

from autodeco_edge.gguf.keys import FEATURES_ENHANCED, HeadSpec  # noqa: E402
from autodeco_edge.train.model import AutoDecoForCausalLM  # noqa: E402
from autodeco_edge.train.modules import AutoDecoHeads  # noqa: E402

N_VOCAB, N_EMBD = 320, 64
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny tensors: a second thread only waits, for seconds where other work holds the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden() -> dict:
    return json.loads((Path(__file__).parents[1] / "golden" / "golden.json").read_text())


@pytest.fixture
def golden_heads() -> AutoDecoHeads:
    """Heads of equations 16, float64: H = 4."""
    heads = AutoDecoHeads(HeadSpec(4, 256, FEATURES_ENHANCED, True, True)).double()
    for head, n_in, a, b, c, d in ((heads.temp_head, 4, 0.1, 0.2, 0.2, 0.4), (heads.top_p_head, 9, 0.3, 0.6, 0.4, 0.8)):
        i, j = torch.arange(256.0).double(), torch.arange(n_in).double()
        with torch.no_grad():
            head.mlp[0].weight.copy_(torch.sin(a + 0.37 * i[:, None] + 0.53 * j) / math.sqrt(n_in))
            head.mlp[0].bias.copy_(0.1 * torch.cos(b + 0.41 * i))
            head.mlp[2].weight.copy_(0.125 * torch.sin(c + 0.53 * i))
            head.mlp[2].bias.fill_(0.1 * math.cos(d))
    return heads


@pytest.fixture(scope="session")
def chi_square_limit():
    """(degrees of freedom, false alarm) -> upper quantile, by Wilson and Hilferty's cube root."""

    def limit(n_free: int, false_alarm: float = 1e-4) -> float:
        z = math.sqrt(2.0) * torch.erfinv(torch.tensor(1.0 - 2.0 * false_alarm, dtype=torch.float64)).item()
        return n_free * (1.0 - 2.0 / (9.0 * n_free) + z * math.sqrt(2.0 / (9.0 * n_free))) ** 3

    return limit


# ---- tiny bases --------------------------------------------------------------------

COMMON = {
    "vocab_size": N_VOCAB,
    "hidden_size": N_EMBD,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 48}
FAMILIES = {
    "llama": ("LlamaConfig", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3_moe": ("Qwen3MoeConfig", {**MOE, "num_experts": 4, "head_dim": 16}),
    "gpt_oss": (
        "GptOssConfig",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16, "sliding_window": 8},
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        {
            **MOE,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 32,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "num_key_value_heads": 4,
        },
    ),
}


@pytest.fixture(scope="session")
def make_base():
    """family -> tiny random base in float32, always the same weights, with peaked logits."""

    def make(family: str = "llama"):
        name, extra = FAMILIES[family]
        config = getattr(transformers, name)(**{**COMMON, **extra})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            base = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
            for parameter_name, parameter in base.named_parameters():
                if parameter.dim() > 1:
                    torch.nn.init.normal_(parameter, std=0.3 if "lm_head" in parameter_name else 0.15)
        return base

    return make


@pytest.fixture(scope="session")
def make_model(make_base):
    """family -> AutoDecoForCausalLM whose T and P vary widely from token to token."""

    def make(family: str = "llama", spec: HeadSpec | None = None) -> AutoDecoForCausalLM:
        heads = AutoDecoHeads(spec or HeadSpec(N_EMBD, 32, FEATURES_ENHANCED, True, True))
        heads.reset_parameters(torch.Generator().manual_seed(3))
        with torch.no_grad():
            for parameter in heads.parameters():
                parameter.mul_(4.0 if parameter.dim() > 1 else 1.0)
        return AutoDecoForCausalLM(make_base(family), heads)

    return make


# ---- tiny tokenizer and data -------------------------------------------------------


@pytest.fixture(scope="session")
def make_tokenizer():
    """adds_bos -> byte-level BPE of at most 320 ids with <s>, <|im_start|> and <|im_end|> (EOS)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    def make(adds_bos: bool = False):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=N_VOCAB,
            special_tokens=["<pad>", "<|im_start|>", "<|im_end|>", "<s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(["one plus two is three", "two plus two is four"] * 8, trainer)
        if adds_bos:
            tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>"
        )
        fast.chat_template = CHATML
        return fast

    return make


@pytest.fixture(scope="session")
def base_dir(make_base, make_tokenizer, tmp_path_factory) -> Path:
    """A tiny llama with its tokenizer, saved."""
    folder = tmp_path_factory.mktemp("base")
    make_base("llama").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_file(tmp_path_factory) -> Path:
    """48 short sums."""
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]
    lines = []
    for i in range(48):
        a, b = i % 4, (i // 4) % 5
        record = {
            "prompt": f"<|im_start|>user\n{words[a]} plus {words[b]}<|im_end|>\n<|im_start|>assistant\n",
            "completion": f"{words[a]} plus {words[b]} is {words[a + b]}",
        }
        lines.append(json.dumps(record))
    path = tmp_path_factory.mktemp("data") / "sums.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
