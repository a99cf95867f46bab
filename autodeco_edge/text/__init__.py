"""Between messages and token ids, and between tokens and a screen: chat templates, the reply stream, traces and plots."""

from .. import engine as _engine  # noqa: F401  how threads wait is settled before llama_cpp is imported
