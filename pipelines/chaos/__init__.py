"""Faults on a running stack under live load, and what its clients saw of them."""
