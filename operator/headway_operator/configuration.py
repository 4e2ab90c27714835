"""What the operator's container is told by its environment, read and checked once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from headway_operator.settings import GpuPool

_POOL_FIELDS = {
    "resource": "resource",
    "perNode": "per_node",
    "nodeSelector": "node_selector",
    "tolerations": "tolerations",
}


class ConfigurationError(ValueError):
    """A variable is missing or makes no sense; the message names it and what it should be."""


@dataclass(frozen=True)
class Configuration:
    """The environment, parsed. The chart sets all of it."""

    namespace: str
    """Where the operator runs: its Lease and its Secret are there."""
    pod_name: str
    pod_ip: str
    """At which other replicas reach this one."""
    lease_name: str
    endpoint_url: str
    """At which pods reach the endpoint."""
    endpoint_secret: str
    """Name of the Secret that holds the endpoint's identity."""
    watch_namespaces: tuple[str, ...]
    """Namespaces to look at; all when empty."""
    pools: Mapping[str, GpuPool]
    bind_address: str
    endpoint_port: int
    probes_port: int
    log_level: str
    log_format: str
    """`json` or `plain`."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Configuration:
        """Read the variables.

        Raises:
            ConfigurationError: one is missing or wrong.
        """
        pod_ip = _required(environ, "HEADWAY_POD_IP")
        url = _required(environ, "HEADWAY_ENDPOINT_URL")
        if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
            raise ConfigurationError(f"HEADWAY_ENDPOINT_URL has to be https://<host>, not {url!r}")
        every = "::" if ":" in pod_ip else "0.0.0.0"
        return cls(
            namespace=_required(environ, "HEADWAY_NAMESPACE"),
            pod_name=_required(environ, "HEADWAY_POD_NAME"),
            pod_ip=pod_ip,
            lease_name=environ.get("HEADWAY_LEASE_NAME", "headway-operator"),
            endpoint_url=url,
            endpoint_secret=environ.get("HEADWAY_ENDPOINT_SECRET", "headway-endpoint"),
            watch_namespaces=_names(environ.get("HEADWAY_WATCH_NAMESPACES", "")),
            pools=_pools(environ.get("HEADWAY_POOLS", "{}")),
            bind_address=environ.get("HEADWAY_BIND_ADDRESS", every),
            endpoint_port=_port(environ, "HEADWAY_ENDPOINT_PORT", 8443),
            probes_port=_port(environ, "HEADWAY_PROBES_PORT", 8080),
            log_level=_one_of(
                environ, "HEADWAY_LOG_LEVEL", ("info", "debug", "warning", "error")
            ).upper(),
            log_format=_one_of(environ, "HEADWAY_LOG_FORMAT", ("json", "plain")),
        )

    @property
    def hostname(self) -> str:
        """The endpoint's name: what its certificate is for."""
        return urlsplit(self.endpoint_url).hostname or ""

    @property
    def address(self) -> str:
        """URL at which other replicas reach this one's endpoint."""
        host = f"[{self.pod_ip}]" if ":" in self.pod_ip else self.pod_ip
        return f"https://{host}:{self.endpoint_port}"

    def identity(self) -> str:
        """A new name for the Lease: a restarted container is not its predecessor."""
        return f"{self.pod_name}_{uuid.uuid4()}"


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise ConfigurationError(f"{name} is not set; the chart's Deployment shows how to set it")
    return value


def _one_of(environ: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = environ.get(name, choices[0])
    if value not in choices:
        raise ConfigurationError(f"{name} has to be {' or '.join(choices)}, not {value!r}")
    return value


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, str(default))
    if not value.isdigit() or not 0 < int(value) < 65536:
        raise ConfigurationError(f"{name} has to be a port, not {value!r}")
    return int(value)


def _names(text: str) -> tuple[str, ...]:
    return tuple(sorted({name for part in text.split(",") if (name := part.strip())}))


def _pools(text: str) -> dict[str, GpuPool]:
    try:
        return {name: _pool(entry) for name, entry in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigurationError(
            f"HEADWAY_POOLS has to be JSON of pools by name, each with {', '.join(_POOL_FIELDS)}: "
            f"{error!r}"
        ) from None


def _pool(entry: Mapping[str, Any]) -> GpuPool:
    given = {_POOL_FIELDS[key]: value for key, value in entry.items()}
    return GpuPool(**{**given, "tolerations": tuple(given.get("tolerations", ()))})
