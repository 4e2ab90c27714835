"""The resources of our own kinds, as `KubeClient` addresses them."""

from typing import Final

from headway_operator.cluster.client import custom_resource

TRAINING_JOB: Final = custom_resource("TrainingJob")
TRAINING_RUNTIME: Final = custom_resource("TrainingRuntime")
CLUSTER_TRAINING_RUNTIME: Final = custom_resource("ClusterTrainingRuntime", namespaced=False)
SWEEP: Final = custom_resource("Sweep")
SWEEP_RECORD: Final = custom_resource("SweepRecord")
