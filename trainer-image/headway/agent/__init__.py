"""The agent: PID 1 of a pod.

It starts the worker processes, watches them, and agrees with the agents of the other pods on
generations and checkpoints. It never imports torch.

Reading order: `agent` (what a pod does from start to end), `node` (this pod's workers),
`lead` (worker 0's agent: drives the group), `group` and `agreement` (its decisions, pure).
"""
