"""What the operator tells a pod through its environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headway.checkpoint.retry import RetryPolicy
from headway.checkpoint.stores import Store, open_store
from headway_api import contract
from headway_api.trainingjob import Checkpoint


class ConfigError(Exception):
    """The environment of this pod can't be right; the message says which variable and why."""


@dataclass(frozen=True)
class PodConfig:
    """One pod's place in its job.

    Attributes:
        job: Name of the TrainingJob.
        namespace: Its namespace.
        pod_name: Name of this pod.
        pod_uid: UID of this pod; a replacement of the same name has another.
        address: IP address at which other pods reach this one.
        index: Stable node rank, 0 to `replicas - 1`.
        replicas: Pods in the group.
        processes: Worker processes in each pod.
        attempt: Number of the group of pods.
        command: Command of each worker process.
        endpoint: Base URL of the operator's endpoint; empty for a pod on its own.
        endpoint_ca: PEM text of the authority behind the endpoint's certificate.
        token_file: The pod's token for the endpoint.
        storage_uri: The job's root in storage; empty without storage.
        storage_endpoint: URL of an S3-compatible server; empty for the provider's own.
        storage_region: Region of the bucket; empty for the default.
        checkpoint: The job's checkpoint policy.
        grace_seconds: Time between SIGTERM and SIGKILL.
        termination_log: File for the agent's last words.
        scratch: Writable folder in memory.
        preload: Modules to import once, before worker processes are forked.
        framework: `PyTorch` or `Horovod`.
    """

    job: str
    namespace: str
    pod_name: str
    pod_uid: str
    address: str
    index: int
    replicas: int
    processes: int
    attempt: int
    command: Sequence[str]
    endpoint: str
    endpoint_ca: str
    token_file: Path
    storage_uri: str
    storage_endpoint: str
    storage_region: str
    checkpoint: Checkpoint
    grace_seconds: int
    termination_log: Path
    scratch: Path
    preload: Sequence[str] = ()
    framework: str = "PyTorch"

    @property
    def leads(self) -> bool:
        """Whether this pod's agent leads the group."""
        return self.index == 0

    @property
    def world_size(self) -> int:
        """Ranks in the whole group."""
        return self.replicas * self.processes

    def open_store(self, retry: RetryPolicy | None = None) -> Store:
        """The job's root in storage.

        Args:
            retry: How long requests are tried; None for the store's own way.

        Raises:
            ValueError: it can't be what `storage_uri` says.
        """
        endpoint, region = self.storage_endpoint or None, self.storage_region or None
        return open_store(self.storage_uri, endpoint=endpoint, region=region, retry=retry)

    @classmethod
    def from_env(cls, env: Mapping[str, str], command: Sequence[str]) -> PodConfig:
        """Read the environment of the contract.

        Raises:
            ConfigError: a variable is missing or not what it should be.
        """
        if not command:
            raise ConfigError("no command: set spec.command, e.g. [python, train.py]")
        name = env.get(contract.ENV_JOB_NAME, "job")
        try:
            return cls(
                job=name,
                namespace=env.get(contract.ENV_JOB_NAMESPACE, "default"),
                pod_name=env.get(contract.ENV_POD_NAME, contract.pod_name(name, 0)),
                pod_uid=env.get(contract.ENV_POD_UID, "alone"),
                address=env.get(contract.ENV_POD_IP) or "127.0.0.1",
                index=int(env.get(contract.ENV_INDEX, "0")),
                replicas=int(env.get(contract.ENV_REPLICAS, "1")),
                processes=int(env.get(contract.ENV_PROCESSES, "1")),
                attempt=int(env.get(contract.ENV_ATTEMPT, "1")),
                command=tuple(command),
                endpoint=env.get(contract.ENV_ENDPOINT, "").rstrip("/"),
                endpoint_ca=env.get(contract.ENV_ENDPOINT_CA, ""),
                token_file=Path(env.get(contract.ENV_TOKEN_FILE, contract.TOKEN_FILE)),
                storage_uri=env.get(contract.ENV_STORAGE_URI, ""),
                storage_endpoint=env.get(contract.ENV_STORAGE_ENDPOINT, ""),
                storage_region=env.get(contract.ENV_STORAGE_REGION, ""),
                checkpoint=Checkpoint.model_validate_json(env.get(contract.ENV_CHECKPOINT) or "{}"),
                grace_seconds=int(env.get(contract.ENV_GRACE_SECONDS, "60")),
                termination_log=Path(
                    env.get(contract.ENV_TERMINATION_LOG, contract.TERMINATION_LOG)
                ),
                scratch=Path(env.get(contract.ENV_SCRATCH, contract.TMP_DIR)),
                framework=env.get(contract.ENV_FRAMEWORK) or "PyTorch",
                preload=tuple(filter(None, env.get(contract.ENV_PRELOAD, "").split(","))),
            )
        except ValueError as error:
            raise ConfigError(f"the pod's environment does not fit the contract: {error}") from None
