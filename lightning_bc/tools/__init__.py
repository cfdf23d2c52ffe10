"""What is made of a trained policy: exports and videos."""
