"""Checkpoints outside a training job: loading them anywhere, and other formats in and out.

Imported piece by piece, so that listing and verifying checkpoints needs no torch.
"""
