"""`python -m autodeco_edge`."""

from .cli import main

main()
