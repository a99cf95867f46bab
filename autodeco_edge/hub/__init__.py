"""Models by name: from ``qwen3-30b-a3b`` or ``user/repo:Q4_K_M`` to a GGUF and its heads on this disk.

``resolve`` is what other packages call. Everything here is light to import; huggingface_hub is loaded
when a name is neither a file nor downloaded yet.
"""

from .resolve import Resolved, resolve

__all__ = ["Resolved", "resolve"]
