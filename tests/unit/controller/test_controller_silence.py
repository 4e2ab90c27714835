"""Words of agents about peers that they don't hear: when they count, and what comes of it."""

import asyncio
from typing import Any

import pytest
from controller_desk import LAB, Desk, at_work, now, until
from virtual import run

from headway_operator.cluster.client import NODE, POD, Object
from headway_operator.silence import Silences

KEY = (LAB, "digits")
HOLD = 4.0


def after(*happened: tuple[float, str, Any], since: float = float("-inf")) -> Silences:
    """What is known after `(time, who, missed)`, where None for missed is any other request."""
    silences = Silences(since)
    for time, who, missed in happened:
        if missed is None:
            silences.spoke(KEY, who, time)
        else:
            silences.said(KEY, who, missed, time)
    return silences


REPEATED = [(float(time), "lead", ["a"]) for time in range(20, 25)]


@pytest.mark.parametrize(
    ("happened", "lost"),
    [
        ([], set()),
        (REPEATED, {"a"}),
        ([(20, "lead", ["a", "b"]), (24, "lead", ["a", "b"])], {"a", "b"}),
        # Once, or not for long enough.
        ([(20, "lead", ["a"])], set()),
        ([(20, "lead", ["a"]), (23.9, "lead", ["a"])], set()),
        # Each for itself, not one after the other.
        ([(20, "b", ["lead"]), (24, "c", ["lead"])], set()),
        # Two silences, not one.
        ([(20, "b", ["lead"]), (31, "b", ["lead"])], set()),
        # Heard again in between.
        ([(20, "lead", ["a"]), (22, "lead", []), (24, "lead", ["a"])], set()),
        ([(20, "lead", ["a"]), (22, "lead", ["b"]), (24, "lead", ["a", "b"])], set()),
        # It speaks itself, whatever it says: within the last 10 s, or before anybody missed it.
        ([*REPEATED, (24, "a", None)], set()),
        ([(20, "lead", ["a"]), (22, "a", ["lead"]), (24, "lead", ["a"])], set()),
        (
            [(20, "lead", ["a"]), (22, "a", []), *((t, "lead", ["a"]) for t in (24, 28, 31.9))],
            set(),
        ),
        ([(20, "lead", ["a"]), (22, "a", []), *((t, "lead", ["a"]) for t in (24, 28, 32))], {"a"}),
        ([(19, "a", None), *REPEATED], {"a"}),
    ],
)
def test_a_pod_is_silent_if_another_says_so_for_a_while_and_it_says_nothing(
    happened: list[tuple[float, str, Any]], lost: set[str]
) -> None:
    latest = max([time for time, *_ in happened], default=0.0)
    assert after(*happened).lasting(KEY, HOLD, latest) == lost


def test_words_that_nobody_repeats_are_void() -> None:
    silences = after(*REPEATED)
    assert silences.lasting(KEY, HOLD, 34) == {"a"}
    assert silences.lasting(KEY, HOLD, 34.1) == set()


def test_who_has_just_begun_to_listen_does_not_know_who_spoke_before() -> None:
    """A partition during a change of leader: the pod that lives gets the time to speak again."""
    assert after(*REPEATED, since=15).lasting(KEY, HOLD, 24) == set()
    assert after(*REPEATED, since=14).lasting(KEY, HOLD, 24) == {"a"}


def test_words_against_one_job_are_none_against_another() -> None:
    silences = after(*REPEATED)
    assert silences.lasting((LAB, "other"), HOLD, 24) == set()
    silences.forget(KEY)
    assert silences.lasting(KEY, HOLD, 24) == set()


async def a_running_job(desk: Desk) -> list[str]:
    """UIDs of its two pods, each on a node of its own."""
    await desk.submit(workers={"replicas": 2})
    await until(lambda: desk.has("digits-1"))
    for index in range(2):
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        await desk.create(NODE, None, {"metadata": {"name": f"node-{index}"}, **ready})
        desk.bind(LAB, f"digits-{index}", f"node-{index}")
        await desk.start(f"digits-{index}")
    await until(lambda: _is(desk, "Running"))
    await asyncio.sleep(40)
    return [(await _pod(desk, index))["metadata"]["uid"] for index in range(2)]


async def _pod(desk: Desk, index: int) -> Object:
    return await desk.get(POD, LAB, f"digits-{index}")


async def _is(desk: Desk, phase: str) -> bool:
    return (await desk.status()).get("phase") == phase


@pytest.mark.parametrize(("victim", "witness"), [(1, 0), (0, 1)], ids=["worker", "lead"])
def test_a_silent_pod_is_made_anew_on_another_node_within_seconds(
    victim: int, witness: int
) -> None:
    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            uids = await a_running_job(desk)
            began = now()

            async def replaced() -> bool:
                controller.heard(KEY, uids[witness], [uids[victim]])
                await asyncio.sleep(1)
                name = f"digits-{victim}"
                return (
                    await desk.has(name)
                    and (await _pod(desk, victim))["metadata"]["uid"] not in uids
                )

            await until(replaced, within=10)
            assert now() - began < 7
            spec = (await _pod(desk, victim))["spec"]
            (term,) = spec["affinity"]["nodeAffinity"][
                "requiredDuringSchedulingIgnoredDuringExecution"
            ]["nodeSelectorTerms"]
            assert term["matchFields"] == [
                {"key": "metadata.name", "operator": "NotIn", "values": [f"node-{victim}"]}
            ]
            restarts = (await desk.status())["restarts"]
            assert (restarts["total"], restarts["counted"]) == (1, 0)
            assert restarts["last"]["reason"] == "NodeLost"
            assert (await _pod(desk, witness))["metadata"]["uid"] == uids[witness]
            samples = controller.metrics.registry.get_sample_value
            assert (samples("headway_silence_reports_total") or 0) >= 5
            assert samples("headway_restarts_total", {"reason": "NodeLost"}) == 1

    run(test())


def test_pods_that_speak_are_left_alone_whatever_they_say_of_each_other() -> None:
    """A partition between two pods: both reach the operator."""

    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            uids = await a_running_job(desk)
            before = len(desk.calls)
            for second in range(60):
                controller.heard(KEY, uids[0], [uids[1]])
                if second % 7 == 2:
                    controller.heard(KEY, uids[1], [uids[0]])
                await asyncio.sleep(1)
            assert [call for call in desk.calls[before:] if call[1] != "get"] == []

    run(test())


def test_words_against_a_pod_that_is_gone_do_nothing_to_its_successor() -> None:
    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            uids = await a_running_job(desk)
            await desk.delete(POD, LAB, "digits-1", grace_seconds=0)
            await until(lambda: desk.has("digits-1"))
            await desk.start("digits-1")
            successor = (await _pod(desk, 1))["metadata"]["uid"]
            for _ in range(60):
                controller.heard(KEY, uids[0], [uids[1]])
                await asyncio.sleep(1)
            assert (await _pod(desk, 1))["metadata"]["uid"] == successor
            assert (await desk.status())["restarts"]["total"] == 1

    run(test())


def test_no_index_gets_a_new_pod_more_often_than_every_half_minute() -> None:
    """Whatever a lead says, and says again, of each new pod."""

    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            uids = await a_running_job(desk)
            seen = set()
            for _ in range(100):
                if await desk.has("digits-1"):
                    pod = await _pod(desk, 1)
                    seen.add(pod["metadata"]["uid"])
                    if not pod["spec"].get("nodeName"):
                        desk.bind(LAB, "digits-1", "node-0")
                        await desk.start("digits-1")
                    controller.heard(KEY, uids[0], [pod["metadata"]["uid"]])
                await asyncio.sleep(1)
            assert 3 <= len(seen) <= 5, "the first at once, then one in 30 s or so"

    run(test())


def test_where_no_other_node_fits_a_pod_may_come_back_after_a_minute() -> None:
    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            uids = await a_running_job(desk)

            async def shut_out() -> bool:
                controller.heard(KEY, uids[0], [uids[1]])
                await asyncio.sleep(1)
                return await desk.has("digits-1") and "affinity" in (await _pod(desk, 1))["spec"]

            await until(shut_out, within=10)
            began = now()

            async def free() -> bool:
                return (
                    await desk.has("digits-1") and "affinity" not in (await _pod(desk, 1))["spec"]
                )

            await until(free, within=70)
            assert now() - began > 50, "Kubernetes may not have noticed yet"
            restarts = (await desk.status())["restarts"]
            assert restarts["total"] == 1, "a pod that never ran is no restart"
            desk.bind(LAB, "digits-1", "node-1")
            await desk.start("digits-1")
            await until(lambda: _is(desk, "Running"))

    run(test())
