"""The operator's environment: what the chart sets is understood, what is wrong is named."""

from __future__ import annotations

import json

import pytest

from headway_operator.configuration import Configuration, ConfigurationError

CHART = {
    "HEADWAY_NAMESPACE": "headway-system",
    "HEADWAY_POD_NAME": "headway-operator-abc",
    "HEADWAY_POD_IP": "10.0.0.7",
    "HEADWAY_ENDPOINT_URL": "https://headway-operator.headway-system.svc:8443",
}


def test_defaults_are_those_of_the_chart() -> None:
    found = Configuration.from_environ(CHART)
    assert found.hostname == "headway-operator.headway-system.svc"
    assert found.address == "https://10.0.0.7:8443"
    assert found.watch_namespaces == ()
    assert (found.bind_address, found.endpoint_port, found.probes_port) == ("0.0.0.0", 8443, 8080)
    assert (found.log_level, found.log_format) == ("INFO", "json")


def test_ipv6_pods_bind_and_are_reached_by_ipv6() -> None:
    found = Configuration.from_environ(CHART | {"HEADWAY_POD_IP": "fd00::7"})
    assert found.address == "https://[fd00::7]:8443"
    assert found.bind_address == "::"


def test_identities_of_a_restarted_container_differ_and_name_the_pod() -> None:
    found = Configuration.from_environ(CHART)
    first, second = found.identity(), found.identity()
    assert first != second
    assert first.startswith("headway-operator-abc_")


def test_namespaces_are_a_list_without_repeats() -> None:
    found = Configuration.from_environ(CHART | {"HEADWAY_WATCH_NAMESPACES": "b, a,b,"})
    assert found.watch_namespaces == ("a", "b")


def test_pools_come_as_the_charts_json() -> None:
    pools = {
        "a100": {
            "resource": "nvidia.com/gpu",
            "perNode": 8,
            "nodeSelector": {"gpu": "a100"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        }
    }
    pool = Configuration.from_environ(CHART | {"HEADWAY_POOLS": json.dumps(pools)}).pools["a100"]
    assert pool.per_node == 8
    assert pool.node_selector == {"gpu": "a100"}
    assert pool.tolerations == ({"key": "nvidia.com/gpu", "operator": "Exists"},)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEADWAY_NAMESPACE", ""),
        ("HEADWAY_POD_IP", ""),
        ("HEADWAY_ENDPOINT_URL", "http://plain:8443"),
        ("HEADWAY_ENDPOINT_URL", "https://"),
        ("HEADWAY_ENDPOINT_PORT", "70000"),
        ("HEADWAY_PROBES_PORT", "web"),
        ("HEADWAY_LOG_LEVEL", "loud"),
        ("HEADWAY_LOG_FORMAT", "xml"),
        ("HEADWAY_POOLS", "no json"),
        ("HEADWAY_POOLS", '{"a100": {"perNodes": 8}}'),
        ("HEADWAY_POOLS", '["a100"]'),
    ],
)
def test_wrong_value_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Configuration.from_environ(CHART | {name: value})
