"""Studies and sweeps: many runs of ``fit`` side by side, on this machine or a Ray cluster.

    runs/plan.py    the fits that a study asks for, and their names
    engine.py       runs fits, each as ``python -m lightning_bc fit --run NAME`` in a process of its own
    ray_engine.py   the same on a Ray cluster; on_node.py is what its tasks do
    process.py      the process of a fit
    settled.py      what flags of fit mean
    command.py      ``study``: every fit of a file
    search.py       what ``sweep`` is asked for, and which settings that means
    sweep.py        ``sweep``: settings tried, the best run anew

What has run is known by the run folders alone, so whatever is stopped goes on by the same command.
"""
