"""Benches of Headway beside its peers: `make bench-checkpoint` and its siblings."""
