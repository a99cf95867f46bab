"""Owns the tokenizer: a byte-level BPE of 2,048 tokens with the qwen2 pipeline, trained on generated text.

The pipeline is the one that `tokenizer.ggml.pre = qwen2` names in GGUF, so llama.cpp and Hugging Face give the same ids.
Qwen2's own NFC normaliser is left out: llama.cpp does not normalise, and ids would differ on decomposed letters.
It knows the chat format, and nothing of models.

    python -m demo.tokenizer OUT_DIR [--seed S]
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from autodeco_edge.tasks.demo import families
from autodeco_edge.tasks.demo.problem import IM_END, IM_START

VOCAB_SIZE = 2048
END_OF_TEXT = "<|endoftext|>"
SPECIALS = (END_OF_TEXT, IM_START, IM_END)
PAD_ID, EOS_ID = VOCAB_SIZE - 3, VOCAB_SIZE - 1
MAX_LENGTH = 1024

# Qwen2's pre-tokenizer: every digit is a token of its own, which is what makes written arithmetic learnable.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The plain ChatML template; llama.cpp recognises it by its markers.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Common words beyond the tasks' own, so that ordinary English does not fall apart into bytes.
ENGLISH = """
about above across after again against age ago air all almost alone along already also always among another answer any anything
area around ask away back bad base because become before began behind being below best better between big black body bring brother
build business call came can car care carry case cause center certain change child children city class clear close cold come common
complete could country course cover cross cut dark day decide deep develop did different direct does door down draw drive during each
early earth east easy eat eight end enough even ever every example eye face fact family far fast father feel few field figure final
fire first five fly follow food foot force form four free friend from front full game general get girl give good government great
ground group grow half hand hard head hear heart heat help here high himself history hold hope hour house however hundred idea
important inside interest just keep kind know land language large last late laugh law lay lead learn leave left less letter life
light line list listen little live long look low machine made main make man many mark matter mean men might mile mind minute miss
money month moon more most mother mountain move much must name near need never new next night nine north note nothing notice now
number object off often old once only open order other our out outside over own page paper part pass past pattern people perhaps
person picture piece plan plant play point possible power present probability problem produce program public pull put question quick
quite reach read ready real really reason record remember rest right river road rock room round rule run same school science sea
second seem sentence set seven several shall ship short should show side simple since sister six size sleep small social some
something song soon sound south space special stand star start state stay step still stop strong student study such sun sure surface
system table take talk teach tell temperature ten test than thank that their them then there these they thing think third this those
though thought thousand three through time today together token told took top toward town tree true try turn two under understand
unit until upon use usual very voice wait want war watch water way week weight well went were west what wheel when where which while
white who whole why will wind with without woman wonder wood word work world would write wrong year yes yesterday yet young your
def return print import class json http www com index html null true false value string code function list file data model text error
"""


def _corpus(seed: int, documents: int):
    rng, weights = random.Random(f"tokenizer {seed}"), families.default_weights()
    for i in range(documents):
        turns = families.training_document(rng, 0.0, weights)
        yield "".join(text for pair in turns for text in pair)
        if i % 1000 == 0:
            yield ENGLISH + ENGLISH.title()


def train_bpe(seed: int, documents: int) -> Tokenizer:
    """The bare pipeline and its 2,048 tokens, specials last (ids 2045 to 2047) as in Qwen2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Markers are no text: they must not enter the merges.
    texts = (_strip_specials(text) for text in _corpus(seed, documents))
    tokenizer.train_from_iterator(texts, trainer)
    _fill(tokenizer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    return tokenizer


def _strip_specials(text: str) -> str:
    for special in SPECIALS:
        text = text.replace(special, "\n")
    return text


def _fill(tokenizer: Tokenizer) -> None:
    """The special ids are fixed by the size: a smaller vocabulary would move them."""
    size = tokenizer.get_vocab_size()
    if size != VOCAB_SIZE - len(SPECIALS):
        raise ValueError(f"the text gives only {size} tokens of {VOCAB_SIZE - len(SPECIALS)}; train on more documents")


def build_tokenizer(out_dir: str | Path, seed: int = 0, documents: int = 20_000) -> PreTrainedTokenizerFast:
    """Train and save `tokenizer.json` and `tokenizer_config.json` (chat template inside) to `out_dir`."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(seed, documents),
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(out_dir)
    return fast


def load_tokenizer(directory: str | Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo tokenizer.")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tokenizer = build_tokenizer(args.out_dir, args.seed)
    print(f"{len(tokenizer)} tokens -> {args.out_dir}")


if __name__ == "__main__":
    main()
