"""``python -m lightning_bc``."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:   # else Ctrl-C while the next line imports is a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from lightning_bc.cli import main

main()
