"""The report: curves, chart, statistics and page from the runs on disk."""
