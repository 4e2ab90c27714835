"""The queue of keys: each once, one worker at a time, some first, some later."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from virtual import run

from headway_operator.workqueue import WorkQueue

Test = Callable[[WorkQueue[str]], Awaitable[None]]


def on_a_queue(test: Test) -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        await test(queue)
        queue.close()

    run(main())


async def taken(queue: WorkQueue[str]) -> list[str]:
    """All keys that wait, in their order."""
    return [await queue.get() for _ in range(len(queue))]


def test_a_key_waits_only_once() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        for key in "abaab":
            queue.add(key)
        assert await taken(queue) == ["a", "b"]

    on_a_queue(test)


def test_keys_with_pods_go_first_and_overtake() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        for key in "abc":
            queue.add(key)
        queue.add("x", first=True)
        queue.add("c", first=True)
        queue.add("x")  # no step back
        assert await taken(queue) == ["x", "c", "a", "b"]

    on_a_queue(test)


def test_a_key_is_never_with_two_workers_and_comes_back_when_done() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        queue.add("a")
        assert len(queue) == 0, "a worker has it"
        queue.done("a")
        assert await taken(queue) == ["a"]
        queue.done("a")
        assert len(queue) == 0

    on_a_queue(test)


def test_the_soonest_later_wish_counts() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        loop = asyncio.get_running_loop()
        for seconds in (50, 10, 30):
            queue.add_later("a", seconds)
        assert await queue.get() == "a"
        assert loop.time() == pytest.approx(10)
        queue.done("a")
        await asyncio.sleep(100)
        assert len(queue) == 0, "one wish remains, not three"

    on_a_queue(test)


def test_a_forgotten_wish_does_not_ring() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        queue.add_later("a", 5)
        queue.forget_timer("a")
        queue.add_later("b", 5)
        queue.close()
        await asyncio.sleep(100)
        assert len(queue) == 0

    on_a_queue(test)


def test_a_waiting_worker_gets_what_comes() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        worker = asyncio.create_task(queue.get())
        await asyncio.sleep(1)
        assert not worker.done()
        queue.add("a")
        assert await worker == "a"

    on_a_queue(test)


def test_a_stall_is_work_of_which_none_gets_done() -> None:
    async def test(queue: WorkQueue[str]) -> None:
        await asyncio.sleep(100)
        assert queue.stalled_seconds() == 0, "idle is no stall"
        queue.add("a")
        queue.add("b")
        await queue.get()
        await asyncio.sleep(30)
        assert queue.stalled_seconds() == pytest.approx(30)
        queue.done("a")
        assert queue.stalled_seconds() == 0, "b has waited, but work gets done"
        await asyncio.sleep(7)
        assert queue.stalled_seconds() == pytest.approx(7)

    on_a_queue(test)
