"""TrainingRuntime and ClusterTrainingRuntime: reusable bases of TrainingJobs."""

from __future__ import annotations

from headway_api.pod import Resources
from headway_api.trainingjob import Framework, RuntimeSpec


class TrainingRuntimeSpec(RuntimeSpec):
    """What jobs that refer to this runtime start from; their own fields win."""

    framework: Framework | None = None
    """Refuses jobs of another framework when set."""
    resources: Resources | None = None
    """Used where a job has no `workers.resources`."""
