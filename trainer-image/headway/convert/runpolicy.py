"""`spec.runPolicy` of Kubeflow's jobs."""

from __future__ import annotations

from headway.convert.fields import Fields
from headway.convert.job import Job
from headway_api.trainingjob import FailurePolicy

_THEMSELVES = {
    "kubeflow.org/training-operator",
    "kubeflow.org/mpi-operator",
    "trainer.kubeflow.org/trainjob-controller",
}
_PERMANENT = [1, 2, 126, 127]
"""What Python and shells exit with: an exception, wrong usage, not executable, not found."""


def convert(policy: Fields, pods: int, job: Job) -> None:
    """Takes clean-up, deadlines, retries and scheduling.

    Args:
        policy: `spec.runPolicy`, or the spec itself in the oldest versions.
        pods: Pods of the group.
        job: To set them in.
    """
    if (clean := policy.take("cleanPodPolicy", str)) is not None:
        text = (
            f"{clean} is left out: pods end with their job, and are kept for their logs until"
            " ttlSecondsAfterFinished"
        )
        job.say(policy.at("cleanPodPolicy"), text)
    job.put("ttlSecondsAfterFinished", policy.take("ttlSecondsAfterFinished", int))
    job.put("activeDeadlineSeconds", policy.take("activeDeadlineSeconds", int))
    restarts(policy.at("backoffLimit"), policy.take("backoffLimit", int), job)
    suspend(policy, job)
    managed_by(policy, job)
    _scheduling(policy.inner("schedulingPolicy"), pods, job)


def restarts(where: str, count: int | None, job: Job) -> None:
    """Sets `failurePolicy.maxRestarts`; of several limits the largest one."""
    before = job.spec.get("failurePolicy", {}).get("maxRestarts")
    if count is None or before == count:
        return
    if before is not None:
        job.say(where, f"of the limits {before} and {count} the larger one is maxRestarts")
        count = max(before, count)
    job.put("failurePolicy.maxRestarts", count)


def suspend(source: Fields, job: Job) -> None:
    """Takes `suspend`; a job that runs does not say so."""
    given = source.take("suspend", bool)
    if given:
        job.put("suspend", True)
    elif given is not None:
        job.say(source.at("suspend"), "a job that is not suspended does not say so")


def managed_by(source: Fields, job: Job) -> None:
    """Takes `managedBy`, unless it names the old operator itself."""
    given = source.take("managedBy", str)
    if given in _THEMSELVES:
        job.say(source.at("managedBy"), f"{given} is left out: Headway takes care of this job")
    elif given is not None:
        job.put("managedBy", given)


def restart_policy(replicas: Fields, job: Job) -> None:
    """Takes `restartPolicy` of a kind of replica, as far as the pods' fate hung on it."""
    given = replicas.take("restartPolicy", str)
    where = replicas.at("restartPolicy")
    if given is None:
        return
    limit = job.spec.get("failurePolicy", {}).get("maxRestarts")
    if given == "Never":
        if limit is None:
            job.put("failurePolicy.maxRestarts", 0)
        job.say(where, f"Never is left out: failurePolicy.maxRestarts is {limit or 0}")
    elif given == "ExitCode":
        rule = {"name": "permanent", "action": "Fail", "onExitCodes": list(_PERMANENT)}
        job.put("failurePolicy.rules", [rule])
        text = (
            "ExitCode let codes from 1 to 127 fail the job, and others restart the pod: name those"
            " that your script exits with"
        )
        job.ask(where, text, "spec.failurePolicy.rules")
    else:
        count = FailurePolicy().max_restarts if limit is None else limit
        often = f"at most {count} times (failurePolicy.maxRestarts)"
        job.say(where, f"{given} restarted single pods: here the whole group restarts, {often}")


def _scheduling(policy: Fields, pods: int, job: Job) -> None:
    if (queue := policy.take("queue", str)) is not None:
        job.put("scheduling.queueName", queue)
        text = f"`{queue}` was a queue of Volcano: queueName is a local queue of Kueue"
        job.ask(policy.at("queue"), text, "spec.scheduling.queueName")
    job.put("scheduling.priorityClassName", policy.take("priorityClass", str))
    job.put("scheduling.startTimeoutSeconds", policy.take("scheduleTimeoutSeconds", int))
    fewest = policy.take("minAvailable", int)
    if fewest is not None and fewest >= pods:
        job.say(policy.at("minAvailable"), "is so in Headway: a group starts as a whole")
    elif fewest is not None:
        text = f"minAvailable was {fewest} of {pods} pods: here a group starts as a whole"
        job.ask(policy.at("minAvailable"), text, "spec.workers.replicas")
    if policy.take_any("minResources") is not None:
        job.say(policy.at("minResources"), "follows from the pods' resources")
