"""``python -m lightning_bc``."""

from lightning_bc.cli import main

main()
