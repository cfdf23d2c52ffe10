"""Runs on disk: folders, results, curves, scores."""
