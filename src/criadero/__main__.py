"""`python -m criadero`, the form torchrun starts."""

from criadero.cli.app import main

main()
