"""Local mode: TrainingJobs without a cluster.

The same operator, on an API server in memory; `kubelet` runs pods as processes of this machine.
"""
