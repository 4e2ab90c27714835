"""The port of the group's store: free on every address, and not that of a neighbour."""

from __future__ import annotations

import socket

import pytest

from headway.agent.ports import store_port
from headway_api.contract import STORE_PORTS


def test_a_port_that_somebody_listens_on_is_passed_over_whatever_the_address() -> None:
    first = store_port("127.88.3.1", 1)
    with socket.create_server(("127.0.0.1", first)):
        assert store_port("127.88.3.1", 1) != first
    assert store_port("127.88.3.1", 1) == first


def test_neighbours_and_generations_begin_at_different_places() -> None:
    found = {
        store_port(f"127.88.3.{pod}", generation)
        for pod in range(1, 6)
        for generation in range(1, 6)
    }
    assert len(found) == 25
    assert all(STORE_PORTS[0] <= port < STORE_PORTS[1] for port in found)


def test_a_range_without_a_free_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.agent.ports.STORE_PORTS", (1, 1))
    with pytest.raises(OSError, match="no free port"):
        store_port("127.0.0.1", 1)
