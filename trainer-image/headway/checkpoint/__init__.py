"""Checkpoints that are whole or do not exist: written by all ranks, verified at every restore.

`writer` saves, `reader` restores, `verification` looks, `retention` and `leftovers` delete, `fence`
stops outdated groups; `stores` opens where they lie, `layout` names the objects, `state` and
`manifest` say what is in them.
Nothing here knows torch.
"""
