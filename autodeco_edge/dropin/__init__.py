"""llama-cpp-python's ``Llama`` in front of our engine and our chat templates. Knows no options and no terminals."""

from .. import engine as _engine  # noqa: F401  how threads wait is settled before llama_cpp is imported
