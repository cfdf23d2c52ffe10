"""Optimizer steps on a CUDA device, replayed from a graph, beside the same with each kernel launched by itself."""

from benchmarks import recorded
from benchmarks.measure import DEVICE, Row, Settings


def rows(settings: Settings) -> list[Row]:
    """Of each strategy whose updates can be recorded; none without a CUDA device."""
    return recorded.rows(settings, "gpu", "launched one by one") if DEVICE.type == "cuda" else []
