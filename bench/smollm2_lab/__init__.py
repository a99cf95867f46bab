"""SmolLM2-135M on a graphics card for a quarter of an hour: draw, train heads, compare with constants.

    pack      here    the model in two parts, problems as token ids, this package's source: a folder to carry
    smoke     there   speed on random weights, and whether the verifiers run
    run       there   calibrate, likelihood, reward, test; each stage ends at its share of --minutes and can be resumed
    offline   here    heads by reward on replies that were drawn before, 40 minutes on two cores
    more      here    more methods on the test problems, minutes each on two cores
    report    here    what came back -> bench/results/smollm2-lab.json and a table
    export    here    heads as checkpoints for `autodeco-edge convert`

Here: ``python -m bench.smollm2_lab``; there, in the folder that was carried: ``python3 -m smollm2_lab``.

There is neither network nor llama.cpp there, so the model is a plain Llama in torch, read from the GGUF, and texts are made from
the vocabulary that `pack` writes. Heads, losses, verifiers and credit are the project's own modules. Nothing else is shared
with the runtime: tests/bench/test_smollm2_lab.py holds the model to transformers', the draw to train/sampling.py and the
gradient to autograd.

The rule that chooses the families, fixed in advance: accuracy at T = 1, P = 1 between 10 and 80 % on the calibration split.

    B sequences, V vocabulary, H hidden width, L layers, S cache length, M tokens of a training step
"""
