"""What is read afterwards: runs on disk and their scores."""
