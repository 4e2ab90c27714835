"""Name, labels and annotations of a job."""

from __future__ import annotations

from headway.convert.fields import ConvertError
from headway.convert.job import Job

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_SERVERS = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def convert(job: Job) -> None:
    """Takes the metadata over, without what the API server wrote there.

    Raises:
        ConvertError: the job has no name.
    """
    source = job.source.inner("metadata")
    name, prefix = source.take("name", str), source.take("generateName", str)
    if name is None and prefix is None:
        raise ConvertError("metadata.name is missing: give the job a name")
    if prefix is not None:
        where = source.at("generateName")
        name = name or prefix.rstrip("-")
        job.ask(where, f"generateName was {prefix}: a job needs a name of its own", "metadata.name")
    given = {
        "name": name,
        "namespace": source.take("namespace", str),
        "labels": source.take("labels", dict),
        "annotations": source.take("annotations", dict),
    }
    job.metadata = {key: value for key, value in given.items() if value}
    _queue(job)
    if job.metadata.get("annotations", {}).pop(_LAST_APPLIED, None):
        where = f"{source.at('annotations')}.{_LAST_APPLIED}"
        job.say(where, "kubectl writes this by itself")
    for field in ("labels", "annotations"):
        if not job.metadata.get(field):
            job.metadata.pop(field, None)
    for field in _SERVERS:
        if source.take_any(field) is not None:
            job.say(source.at(field), "the API server writes this by itself")
    if job.source.take_any("status") is not None:
        job.say("status", "what happened to the old job stays with it")


def _queue(job: Job) -> None:
    job.put("scheduling.queueName", job.metadata.get("labels", {}).pop(QUEUE_LABEL, None))
