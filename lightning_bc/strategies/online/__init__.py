"""Strategies that act in the environment while they learn, and what they are composed of."""
