"""Strategies that learn from demonstrations alone."""
