"""Players that test_rollout_workers.py sends to another process; it imports this file and not the tests."""

import sys
import time

from lightning_bc.players import Memoryless


def fail(observations):
    raise ZeroDivisionError("no idea")


def hang(observations):
    time.sleep(60)


def leave(observations):
    sys.exit(3)


FAILING, HANGING, LEAVING = Memoryless(fail), Memoryless(hang), Memoryless(leave)
