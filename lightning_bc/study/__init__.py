"""Studies and sweeps: many runs of ``fit`` side by side, on this machine or a Ray cluster.

What has run is known by the run folders alone, so whatever is stopped goes on by the same command. ``runs/plan.py`` has the
fits that a study asks for, and their names.
"""
