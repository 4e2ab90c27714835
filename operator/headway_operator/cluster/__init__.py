"""Clusters behind one protocol: a real API server and one in memory."""
