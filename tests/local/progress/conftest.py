"""An operator with one job of two pods, and an endpoint that they can call."""

from contextlib import AsyncExitStack

import pytest
from progress_world import World


@pytest.fixture
async def world():
    made = World()
    made.put_job()
    for index in range(2):
        made.put_pod(index)
    return made


@pytest.fixture
async def pods(world):
    async with AsyncExitStack() as stack:
        url, _ = await stack.enter_async_context(world.serve())
        yield await stack.enter_async_context(world.client(url))
