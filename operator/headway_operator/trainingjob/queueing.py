"""Queues: a job with `scheduling.queueName` runs while Kueue admits it.

docs/design/queueing.md says why by Workloads of our own, and what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from headway_api.trainingjob import TrainingJobSpec
from headway_operator.trainingjob import workload as kueue
from headway_operator.trainingjob.plan import Plan, QueueStep
from headway_operator.trainingjob.pods import Blueprint, blueprint, spec_hash
from headway_operator.trainingjob.situation import Situation
from headway_operator.trainingjob.stuck import Stuck
from headway_operator.trainingjob.suspend import Rest, resting
from headway_operator.trainingjob.view import View
from headway_operator.trainingjob.workload import Flavor, Workload


def queue_of(spec: TrainingJobSpec, view: View) -> str | None:
    """The queue that a job waits in; None for none. On a laptop there are no queues."""
    if not view.settings.queues or spec.scheduling is None:
        return None
    return spec.scheduling.queue_name


def admitted(here: Situation) -> bool:
    """Whether the pods may run, as far as the queue is concerned."""
    if queue_of(here.spec, here.view) is None:
        return True
    found = here.view.workload
    if found is None or found.deleting or not found.admitted or not _fits(here, found):
        return False
    assert found.grant is not None
    return all(name in here.view.flavors for name in found.grant.flavors)


def queued(here: Situation) -> Plan:
    """The plan of a job that has to wait its turn: pods get their grace period, nothing counts.

    Raises:
        Stuck: no pod can be made of this spec, or the API server refuses the Workload.
    """
    drawn = blueprint(here.view.job, here.spec, here.view.settings)
    found, obstacle = here.view.workload, here.view.obstacle
    if obstacle is not None and found is None:
        if obstacle.kind == "Refused":
            raise Stuck("Refused", obstacle.message)
        return resting(here, Rest("Queued", "Queued", f"{obstacle.message} It is tried again."))
    plan = resting(here, _why(here, found))
    if here.view.pods or (found is not None and found.deleting):
        return plan
    return replace(plan, queue=_step(here, found, drawn))


def left(here: Situation, plan: Plan) -> Plan:
    """The plan of a job that rests for other reasons: without pods it holds no quota."""
    found = here.view.workload
    if found is None or found.deleting or here.view.pods:
        return plan
    return replace(plan, queue=QueueStep("drop", found.name, found.uid))


def told(here: Situation, plan: Plan) -> Plan:
    """The plan of a job that runs: Kueue may wait for its pods to be ready."""
    found = here.view.workload
    if found is None:
        return plan
    if queue_of(here.spec, here.view) is None:  # it was taken out of the queue
        return replace(plan, queue=QueueStep("drop", found.name, found.uid))
    if found.ready or not here.group().complete:
        return plan
    return replace(plan, queue=_tell(found, kueue.started(found, here.now)))


def ended(view: View, plan: Plan, now: datetime) -> Plan:
    """The plan of a job that is over: it takes no quota any more."""
    found = view.workload
    if found is None or found.finished or found.deleting:
        return plan
    status = view.job.status
    reason = "Succeeded" if status.phase == "Succeeded" else "Failed"
    patch = kueue.over(found, reason, status.message or "", now)
    return replace(plan, queue=_tell(found, patch))


# --- where granted pods run -----------------------------------------------------------------------


def granted(
    drawn: Blueprint, workload: Workload | None, flavors: Mapping[str, Flavor]
) -> Blueprint:
    """Pods as Kueue has assigned them: on the nodes of their flavors."""
    if workload is None or workload.grant is None:
        return drawn
    spec, metadata = dict(drawn.spec), dict(drawn.metadata)
    assigned = [flavors[name] for name in workload.grant.flavors if name in flavors]
    selectors = [each.node_labels for each in assigned]
    tolerations = [toleration for each in assigned for toleration in each.tolerations]
    for update in workload.grant.updates:
        selectors.append(update.get("nodeSelector") or {})
        tolerations += update.get("tolerations") or ()
        for field in ("labels", "annotations"):
            metadata[field] = {**metadata[field], **(update.get(field) or {})}
    selector = dict(spec.get("nodeSelector") or {})
    for each in selectors:
        selector |= each
    if selector:
        spec["nodeSelector"] = selector
    spec["tolerations"] = [*spec["tolerations"], *map(dict, tolerations)]
    return replace(drawn, spec=spec, metadata=metadata)


def narrowed(here: Situation) -> Situation:
    """An elastic group with as many pods as were admitted: fewer, maybe, than asked for."""
    found = here.view.workload
    if queue_of(here.spec, here.view) is None or found is None or found.grant is None:
        return here
    workers = here.spec.workers
    count = min(workers.replicas, found.grant.count or workers.replicas)
    spec = here.spec.model_copy(update={"workers": workers.model_copy(update={"replicas": count})})
    return replace(here, spec=spec)


# --- steps ----------------------------------------------------------------------------------------


def _step(here: Situation, found: Workload | None, drawn: Blueprint) -> QueueStep | None:
    if found is None:
        return QueueStep("make", kueue.workload_name(here.view.job.name), body=_body(here, drawn))
    if found.finished or not _fits(here, found):  # made anew when it is gone
        return QueueStep("drop", found.name, found.uid)
    if found.evicted and found.grant is not None:
        return _tell(found, kueue.given_back(found, here.now))
    return None


def _tell(found: Workload, status: dict[str, Any]) -> QueueStep:
    metadata = {"uid": found.uid, "resourceVersion": found.version}
    return QueueStep("tell", found.name, found.uid, {"metadata": metadata, "status": status})


def _body(here: Situation, drawn: Blueprint) -> dict[str, Any]:
    queue, elastic = queue_of(here.spec, here.view), here.spec.workers.elastic
    assert queue is not None
    return kueue.body(
        here.view.job.name,
        _digest(here.spec),
        queue,
        {"metadata": drawn.metadata, "spec": drawn.spec},
        count=here.spec.workers.replicas,
        least=elastic.min_replicas if elastic else None,
    )


def _fits(here: Situation, found: Workload) -> bool:
    """Whether a Workload asks for what the job is now."""
    return (found.digest, found.queue) == (_digest(here.spec), queue_of(here.spec, here.view))


def _digest(spec: TrainingJobSpec) -> str:
    # The hash of an elastic job leaves its size out.
    return f"{spec_hash(spec)}-{spec.workers.replicas}"


def _why(here: Situation, found: Workload | None) -> Rest:
    queue = queue_of(here.spec, here.view)
    if found is not None and found.evicted and here.view.pods:
        return Rest("Queued", "Queued", "", saving=f"Kueue takes the quota back: {found.said}")
    said = f"The job waits in queue {queue}."
    if found is not None and found.admitted and found.grant is not None:
        missing = [name for name in found.grant.flavors if name not in here.view.flavors]
        if missing and _fits(here, found):
            said = f"It is admitted to ResourceFlavor {', '.join(missing)}, which is not there."
    elif found is not None and found.said:
        said = f"{said} {found.said}"
    return Rest("Queued", "Queued", said)
