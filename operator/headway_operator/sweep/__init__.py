"""Sweeps: which trials there are, what they try, and when they end."""
