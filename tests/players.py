"""Players that test_rollout_workers.py sends to another process; it imports this file and not the tests."""

import time

from lightning_bc.players import Memoryless


def fail(observations):
    raise ZeroDivisionError("no idea")


def hang(observations):
    time.sleep(60)


FAILING, HANGING = Memoryless(fail), Memoryless(hang)
