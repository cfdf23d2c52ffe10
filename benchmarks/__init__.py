"""Speed, as ratios of two things that take turns in one process: ``python -m benchmarks``.

Each part is a file with a function ``rows``; :mod:`benchmarks.__main__` writes its table into docs/benchmarks.md.
"""
