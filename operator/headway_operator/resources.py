"""The resources of our own kinds, as `KubeClient` addresses them."""

from typing import Final

from headway_operator.cluster.client import custom_resource

TRAINING_JOB: Final = custom_resource("TrainingJob")
TRAINING_RUNTIME: Final = custom_resource("TrainingRuntime")
CLUSTER_TRAINING_RUNTIME: Final = custom_resource("ClusterTrainingRuntime", namespaced=False)
WORKLOAD: Final = custom_resource("Workload", group="kueue.x-k8s.io", version="v1beta2")
RESOURCE_FLAVOR: Final = custom_resource(
    "ResourceFlavor", group="kueue.x-k8s.io", version="v1beta2", namespaced=False
)
"""Kueue's: a cluster need not have them."""
SWEEP: Final = custom_resource("Sweep")
SWEEP_RECORD: Final = custom_resource("SweepRecord")
