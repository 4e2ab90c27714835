"""The operator dies at each of its writes in turn: before, after or while it takes effect."""

import asyncio
from collections import Counter

import pytest
from faults import MOMENTS, Faults, Moment
from scenario import Simulation, job_spec
from test_histories import errors_into
from virtual import run
from world import NAMESPACE, Trouble, Truth, loss

from headway_operator.cluster.client import POD, Object
from headway_operator.resources import TRAINING_JOB

SCRIPTS: dict[str, list[Trouble]] = {
    "healthy": [],
    "pod crashes": [Trouble(3, "crash", 1), Trouble(8, "oom", 0)],
    "pod lost": [Trouble(3, "kill", 1), Trouble(8, "evict", 1)],
    "in place, then pod": [Trouble(3, "in place"), Trouble(8, "crash", 1)],
    "budget": [Trouble(2, "crash", 1), Trouble(4, "crash", 1), Trouble(6, "crash", 1)],
    "pod hangs": [Trouble(3, "hang", 1)],
    "node": [Trouble(3, "power cut", 1)],
    "isolated": [Trouble(3, "isolation", 1)],
    "partition": [Trouble(3, "partition", 1), Trouble(8, "partition", 0)],
    "hopeless": [Trouble(3, "config", 0)],
}


async def live(
    faults: Faults,
    script: list[Trouble],
    *,
    suspend: bool = False,
    work: float = 12,
    clumsy_ends: int = 0,
    machines: int = 3,
    seed: int = 7,
) -> Simulation:
    simulation = Simulation(seed, faults)
    with errors_into(simulation.bugs):
        await simulation.world.add_machines(machines)
        truth = Truth("job", "", work, [Trouble(**vars(item)) for item in script], 2, exact=True)
        truth.clumsy_ends = clumsy_ends
        await simulation.world.submit(truth, job_spec(truth, 2))
        if suspend:
            await rest_for_a_while(simulation)
        await simulation.until_over()
        await simulation.check_end()
    return simulation


async def rest_for_a_while(simulation: Simulation) -> None:
    await until(simulation, "Running")
    await set_suspend(simulation, True)
    await until(simulation, "Suspended")
    await set_suspend(simulation, False)


async def until(simulation: Simulation, phase: str) -> None:
    while (await the_job(simulation)).get("status", {}).get("phase") != phase:
        assert simulation.now < 500, f"never {phase}"
        await simulation.moment()


async def the_job(simulation: Simulation) -> Object:
    return await simulation.cluster.get(TRAINING_JOB, NAMESPACE, "job")


async def set_suspend(simulation: Simulation, value: bool) -> None:
    body = {"spec": {"suspend": value}}
    await simulation.cluster.patch(TRAINING_JOB, NAMESPACE, "job", body)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_crash_at_any_write_changes_neither_end_nor_counts(name: str, moment: Moment) -> None:
    """`check_end` demands the end and the exact count; the first run tells how many writes."""
    undisturbed = run(live(Faults(), SCRIPTS[name]))
    for number in range(1, len(undisturbed.writes) + 1):
        faults = Faults(crash_write=number, crash_moment=moment)
        simulation = run(live(faults, SCRIPTS[name]))
        assert any("dies" in line for line in simulation.trace), f"no crash at {number}"


@pytest.mark.parametrize("victim", [0, 1], ids=["lead", "worker"])
def test_a_power_cut_is_answered_long_before_kubernetes_notices(victim: int) -> None:
    """Within 20 s from the silence to the start of a successor elsewhere."""
    for seed in range(20):
        simulation = run(live(Faults(), [Trouble(30, "power cut", victim)], work=60, seed=seed))
        starts = [
            (float(line.split()[0]), line.split()[-1])
            for line in simulation.trace
            if f"kubelet: job-{victim} runs on" in line
        ]
        cut, node = next(
            (float(line.split()[0]), line.split()[2])
            for line in simulation.trace
            if "loses power" in line
        )
        if f"job-{1 - victim} runs on {node}" in str(simulation.trace):
            continue  # one node for both: nobody is left to miss them
        (_, successor) = starts
        assert successor[0] - cut < 20, f"seed {seed}"
        assert successor[1] != node, f"seed {seed}"


def test_a_cluster_of_one_node_takes_its_silent_pod_back() -> None:
    script = [Trouble(30, "isolation", 1)]
    totals = []
    for seed in range(5):
        simulation = run(live(Faults(), script, machines=1, seed=seed))
        restarts = simulation.last_jobs[0]["status"].get("restarts") or {}
        totals.append(restarts.get("total", 0))
    assert 1 in totals, "no isolation was long enough"


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_crash_during_suspension_counts_nothing(moment: Moment) -> None:
    undisturbed = run(live(Faults(), [], suspend=True, work=60))
    for number in range(1, len(undisturbed.writes) + 1):
        faults = Faults(crash_write=number, crash_moment=moment)
        simulation = run(live(faults, [], suspend=True, work=60))
        job = simulation.last_jobs[0]
        assert "restarts" not in job["status"] or not job["status"]["restarts"]["total"], job
        assert job["status"]["attempt"] == 2


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_lead_that_fails_when_all_are_done_gets_its_workers_back(moment: Moment) -> None:
    """They end well before, while and after it is made anew, and are all needed again."""
    undisturbed = run(live(Faults(), [], clumsy_ends=2))
    for number in range(1, len(undisturbed.writes) + 1):
        run(live(Faults(crash_write=number, crash_moment=moment), [], clumsy_ends=2))


async def queue_up(faults: Faults, *, suspend: bool = False) -> Simulation:
    """Two jobs, and quota for one at a time; each is preempted once."""
    simulation = Simulation(7, faults)
    with errors_into(simulation.bugs):
        await simulation.world.add_machines(3)
        await simulation.install_kueue(quota=2)
        for name in ("job", "other"):
            work = 60 if suspend else 12  # an operator may be away for a while
            truth = Truth(name, "", work, [Trouble(4, "preempt")], 2, exact=True)
            fields = {"scheduling": {"queueName": "team"}}
            await simulation.world.submit(truth, job_spec(truth, 2, **fields))
        if suspend:
            await rest_for_a_while(simulation)
        await simulation.until_over()
        await simulation.check_end()
    return simulation


@pytest.mark.parametrize("suspend", [False, True], ids=["", "suspended"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_crash_in_the_queue_never_runs_without_quota_and_counts_nothing(
    moment: Moment, suspend: bool
) -> None:
    """`Kueue.step` demands that who has pods has a reservation."""
    undisturbed = run(queue_up(Faults(), suspend=suspend))
    assert sum("preempts" in line for line in undisturbed.trace) == 2
    for number in range(1, len(undisturbed.writes) + 1):
        faults = Faults(crash_write=number, crash_moment=moment)
        simulation = run(queue_up(faults, suspend=suspend))
        for job in simulation.last_jobs:
            assert not (job["status"].get("restarts") or {}).get("total"), job


async def run_out_of_time(faults: Faults) -> Simulation:
    """A job that exceeds its deadline, fails, and expires."""
    simulation = Simulation(7, faults)
    with errors_into(simulation.bugs):
        await simulation.world.add_machines(3)
        limits = {"activeDeadlineSeconds": 20, "ttlSecondsAfterFinished": 30}
        truth = Truth("job", "", 10**6, [], 2)
        await simulation.world.submit(truth, job_spec(truth, 2, **limits))
        last: Object = {}
        while found := await simulation.jobs():
            assert simulation.now < 500, "it never expired"
            last = found[0].get("status") or {}
            await simulation.moment()
        assert (last["phase"], last["reason"]) == ("Failed", "DeadlineExceeded")
        for _ in range(150):  # pods get their grace; a dead operator's write may still come
            await simulation.moment()
        assert (await simulation.cluster.list(POD)).items == []
        await simulation.stop()
    return simulation


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_crash_changes_nothing_about_a_jobs_deadline_and_expiry(moment: Moment) -> None:
    undisturbed = run(run_out_of_time(Faults()))
    for number in range(1, len(undisturbed.writes) + 1):
        faults = Faults(crash_write=number, crash_moment=moment)
        simulation = run(run_out_of_time(faults))
        assert any("dies" in line for line in simulation.trace), f"no crash at {number}"


def test_a_healthy_life_takes_its_pods_and_three_writes() -> None:
    """Two pods, Starting, Running, Succeeded; no Event, no Service, nothing else."""
    simulation = run(live(Faults(), [], work=5))
    kinds = [" ".join(line.split()[:2]) for line in simulation.writes]
    assert kinds == ["create Pod"] * 2 + ["patch TrainingJob"] * 3


def test_an_hour_of_steady_training_takes_no_writes() -> None:
    """Resyncs find nothing to do; no timestamp moves alone."""

    async def steady() -> None:
        simulation = Simulation(3)
        await simulation.world.add_machines(1)
        truth = Truth("job", "", 10**6, [], 2)
        await simulation.world.submit(truth, job_spec(truth, 2))
        await until(simulation, "Running")
        before = len(simulation.writes)
        for _ in range(200):
            await simulation.moment()
        reports = len(simulation.writes) - before
        assert reports <= 20, "progress is written more often than every 10 s"
        simulation.old_reports.clear()
        await asyncio.sleep(20)
        writes = len(simulation.writes)
        await asyncio.sleep(3600)
        assert simulation.writes[writes:] == []
        await simulation.stop()

    run(steady())


PAUSES: dict[str, list[Trouble]] = {
    "healthy": [],
    "pod lost before": [Trouble(5, "kill", 1)],
    "pod crashes at it": [Trouble(6, "crash", 1)],
    "rank killed at it": [Trouble(6, "in place")],
    "pod evicted at it": [Trouble(6, "evict", 1)],
}


async def pause_twice(
    faults: Faults, script: list[Trouble], clumsy_pauses: int = 0, *, suspend: bool = False
) -> Simulation:
    """A job that pauses after steps 6 and 12, and ends after step 18."""
    simulation = Simulation(7, faults)
    with errors_into(simulation.bugs):
        await simulation.world.add_machines(3)
        truth = Truth("job", "", 18, [Trouble(**vars(item)) for item in script], 2, exact=True)
        truth.clumsy_pauses = clumsy_pauses
        await simulation.world.submit(truth, job_spec(truth, 2, pauseAtStep=6))
        for step, then in ((6, 12), (12, None)):
            await until_paused(simulation, step)
            if suspend:
                await rest_twice(simulation, step)
            await set_pause(simulation, step - 1)  # it is past that: nothing happens
            await stay_paused(simulation, step)
            await set_pause(simulation, then)
        await simulation.until_over()
        await simulation.check_end()
    return simulation


async def until_paused(simulation: Simulation, step: int) -> None:
    while not is_paused(await the_job(simulation), step):
        assert simulation.now < 900, f"never paused after {step}"
        await simulation.moment()


def is_paused(job: Object, step: int) -> bool:
    status = job.get("status") or {}
    paused = status.get("phase") == "Suspended" and status.get("reason") == "PausedAtStep"
    return paused and status["pausedAtStep"] == step


async def stay_paused(simulation: Simulation, step: int) -> None:
    """Whatever becomes of the operator, nothing moves and nothing is forgotten."""
    for _ in range(60):
        await simulation.moment()
        job = await the_job(simulation)
        assert job["status"]["pausedAtStep"] == step, job["status"]
    await until_paused(simulation, step)  # a dead operator's write may have made a pod
    assert (await simulation.cluster.list(POD)).items == []
    (seen,) = job["status"]["observations"]
    assert seen["last"] == {"step": step, "value": repr(loss(step))}
    assert seen["curve"][-1] == seen["last"]


async def rest_twice(simulation: Simulation, step: int) -> None:
    """A suspension on top of the pause, which is there when it is taken back."""
    await set_suspend(simulation, True)
    while (await the_job(simulation))["status"]["reason"] != "Suspended":
        assert simulation.now < 900, "never suspended"
        await simulation.moment()
    await set_suspend(simulation, False)
    await until_paused(simulation, step)


async def set_pause(simulation: Simulation, step: int | None) -> None:
    body = {"spec": {"pauseAtStep": step}}
    await simulation.cluster.patch(TRAINING_JOB, NAMESPACE, "job", body)


def check_promotions(simulation: Simulation) -> None:
    (job,) = simulation.last_jobs
    assert job["status"]["phase"] == "Succeeded", job["status"]
    assert job["status"]["attempt"] == 3, "a pause is no restart, and each one ends"
    (seen,) = job["status"]["observations"]
    (truth,) = simulation.truths.values()
    end = int(truth.done)
    assert seen["last"] == {"step": end, "value": repr(loss(end))}
    assert {6, 12, end} <= {point["step"] for point in seen["curve"]}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", PAUSES)
def test_a_crash_at_any_write_changes_nothing_about_a_pause(name: str, moment: Moment) -> None:
    """`check_end` demands the exact count of restarts, the invariants the step that is saved."""
    undisturbed = run(pause_twice(Faults(), PAUSES[name]))
    check_promotions(undisturbed)
    for number in range(1, len(undisturbed.writes) + 1):
        faults = Faults(crash_write=number, crash_moment=moment)
        simulation = run(pause_twice(faults, PAUSES[name]))
        assert any("dies" in line for line in simulation.trace), f"no crash at {number}"
        check_promotions(simulation)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_lead_that_fails_when_all_have_paused_pauses_again(moment: Moment) -> None:
    undisturbed = run(pause_twice(Faults(), [], clumsy_pauses=2))
    for number in range(1, len(undisturbed.writes) + 1):
        faults = Faults(crash_write=number, crash_moment=moment)
        check_promotions(run(pause_twice(faults, [], clumsy_pauses=2)))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_crash_while_a_paused_job_is_suspended_changes_nothing(moment: Moment) -> None:
    undisturbed = run(pause_twice(Faults(), [], suspend=True))
    for number in range(1, len(undisturbed.writes) + 1):
        faults = Faults(crash_write=number, crash_moment=moment)
        check_promotions(run(pause_twice(faults, [], suspend=True)))


def test_a_pause_takes_two_writes_and_its_pods() -> None:
    """No Event; going on again takes what a start takes."""
    simulation = run(pause_twice(Faults(), []))
    kinds = Counter(" ".join(line.split()[:2]) for line in simulation.writes)
    start, edit, pause, end = 2, 1, 2, 1
    status_writes = 3 * start + 2 * (pause + edit) + end
    assert kinds == {"create Pod": 6, "delete Pod": 4, "patch TrainingJob": status_writes}
