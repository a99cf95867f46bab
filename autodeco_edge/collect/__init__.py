"""Training data for heads: replies drawn from a frozen model, those that solve their problem kept.

    collect(CollectConfig(...))   -> summary; writes the JSONL that ``autodeco-edge train`` reads

The recipe is the paper's: samples at T = 1, P = 1, and rejection by a verifier (equations 6). Knows no training.
"""
