"""The PyTorch side: heads as modules, losses, checkpoints, a Hugging Face wrapper, training.

torch, transformers and accelerate live only here. None of them is imported by this file, so
that ``import autodeco_edge.train`` costs nothing; import the module you need:

    modules     TempHead, TopPHead, AutoDecoHeads        losses      the official losses, plain form
    objective   losses of a batch, row chunks            sampling    nucleus and draw, batched
    model       AutoDecoForCausalLM (forward, generate)  checkpoint  official files, read and written
    data        JSONL -> token ids and labels            trainer     train(TrainConfig)
    backbone    the frozen base, by transformers         gguf_backbone   the same, by llama.cpp
"""

from .. import engine as _engine  # noqa: F401  how threads wait is settled before llama_cpp is imported
