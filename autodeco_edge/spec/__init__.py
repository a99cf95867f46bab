"""The idea in numpy: the two heads, the statistics, the nucleus. The oracle that every fast path is tested against."""
