"""The contract between the operator and a pod: names, paths, ports and exit codes.

Both sides import this module, so that a name is written once. What may change without a new
API version is said beside each group.
"""

from __future__ import annotations

from enum import IntEnum

GROUP = "headway.dev"
"""API group of every resource, and prefix of every label and annotation of ours."""
VERSION = "v1alpha1"
"""Version of the API."""
API_VERSION = f"{GROUP}/{VERSION}"
"""`apiVersion` of every resource."""

# --- labels and annotations of the operator's children -------------------------------------

LABEL_JOB = f"{GROUP}/job-name"
"""On every child: the name of its TrainingJob. The operator's watch selects on it."""
LABEL_INDEX = f"{GROUP}/worker-index"
"""On a pod: its stable node rank, 0 to replicas-1."""
LABEL_ROLE = f"{GROUP}/role"
"""On a pod: `lead` for worker 0, `worker` for the others."""
LABEL_ATTEMPT = f"{GROUP}/attempt"
"""On a pod: the group attempt it belongs to (`status.attempt`). Older pods are removed."""
LABEL_SWEEP = f"{GROUP}/sweep-name"
"""On a trial's TrainingJob and on a sweep's records: the name of the Sweep."""
LABEL_TRIAL = f"{GROUP}/trial-index"
"""On a trial's TrainingJob: number of its configuration, from 0."""
LABEL_RUN = f"{GROUP}/trial-run"
"""On a trial's TrainingJob: which repeat of its configuration it is, from 0."""
ANNOTATION_TRIAL = f"{GROUP}/trial"
"""On a trial's TrainingJob: JSON of its typed parameters, and of what the search algorithm has to
know of it later. Written once: the object is the record that this configuration was chosen."""
ANNOTATION_STOPPED = f"{GROUP}/trial-stopped"
"""On a trial's TrainingJob that was suspended for good: the rule that stopped it."""
ANNOTATION_SPEC_HASH = f"{GROUP}/spec-hash"
"""On a pod: hash of what it was built from, to tell an edited job from a repeated event."""
ANNOTATION_AVOIDS = f"{GROUP}/avoids-nodes"
"""On a pod that is made again: nodes, joined by commas, that its predecessors fell silent on."""
ANNOTATION_AGENT_ADDRESS = f"{GROUP}/agent-address"
"""On a pod, in local mode only: the loopback address that stands for the pod's IP."""

CONTAINER = "trainer"
"""Name of the container that runs the agent and the workers."""

# --- the pod's environment ------------------------------------------------------------------

ENV_JOB_NAME = "HEADWAY_JOB_NAME"
"""Name of the TrainingJob."""
ENV_JOB_NAMESPACE = "HEADWAY_JOB_NAMESPACE"
"""Its namespace."""
ENV_JOB_UID = "HEADWAY_JOB_UID"
"""Its UID, which tells it from an earlier job of the same name."""
ENV_POD_NAME = "HEADWAY_POD_NAME"
"""Name of the pod (downward API)."""
ENV_POD_UID = "HEADWAY_POD_UID"
"""UID of the pod (downward API): it is new each time that the pod is replaced."""
ENV_POD_IP = "HEADWAY_POD_IP"
"""IP address of the pod (downward API), under which other agents reach this one."""
ENV_INDEX = "HEADWAY_WORKER_INDEX"
"""The pod's stable node rank, 0 to replicas-1. The agent of worker 0 leads."""
ENV_REPLICAS = "HEADWAY_REPLICAS"
"""Pods of the group (`spec.workers.replicas`)."""
ENV_PROCESSES = "HEADWAY_PROCESSES_PER_WORKER"
"""Worker processes (ranks) of each pod (`spec.workers.processesPerWorker`)."""
ENV_FRAMEWORK = "HEADWAY_FRAMEWORK"
"""`PyTorch` or `Horovod`: which variables the worker processes get."""
ENV_HOROVOD_FILES = "HEADWAY_HOROVOD_FILES"
"""What Horovod's rank 0 is to write and the agent takes to storage: `timeline` and `autotune`,
joined by commas."""
ENV_ATTEMPT = "HEADWAY_ATTEMPT"
"""Number of the group of pods (`status.attempt`) that this pod belongs to."""
ENV_ENDPOINT = "HEADWAY_ENDPOINT"
"""Base URL of the operator's endpoint, e.g. https://headway-operator.headway-system.svc:8443."""
ENV_ENDPOINT_CA = "HEADWAY_ENDPOINT_CA"
"""PEM text of the authority that signs the endpoint's certificate."""
ENV_TOKEN_FILE = "HEADWAY_TOKEN_FILE"  # noqa: S105 (a path's name, not a secret)
"""Path of the token that the endpoint asks for; the kubelet renews the file."""
ENV_STORAGE_URI = "HEADWAY_STORAGE_URI"
"""This job's own root in storage: `spec.storage.uri` + `/<name>-<first 8 of UID>`."""
ENV_STORAGE_ENDPOINT = "HEADWAY_STORAGE_ENDPOINT"
"""URL of the S3-compatible server (`spec.storage.endpoint`); unset for the provider's own."""
ENV_STORAGE_REGION = "HEADWAY_STORAGE_REGION"
"""Region of the bucket (`spec.storage.region`)."""
ENV_CHECKPOINT = "HEADWAY_CHECKPOINT"
"""JSON of `spec.checkpoint` (camelCase keys)."""
ENV_PARAMETERS = "HEADWAY_PARAMETERS"
"""JSON of `spec.parameters`; each also as HEADWAY_PARAM_<NAME>."""
ENV_PARAM_PREFIX = "HEADWAY_PARAM_"
"""Prefix of each parameter's own variable: `lr.warmup` is HEADWAY_PARAM_LR_WARMUP."""
ENV_PRELOAD = "HEADWAY_PRELOAD"
"""Modules of `spec.preload`, joined by commas."""
ENV_GRACE_SECONDS = "HEADWAY_GRACE_SECONDS"
"""The pod's termination grace period: how long a save on SIGTERM may take."""
ENV_TERMINATION_LOG = "HEADWAY_TERMINATION_LOG"
"""Where the agent writes its last words (JSON of `progress.TerminationReport`)."""
ENV_SCRATCH = "HEADWAY_SCRATCH"
"""A writable folder in memory that survives a container restart."""
ENV_MEMORY_LIMIT = "HEADWAY_MEMORY_LIMIT_BYTES"
"""Memory limit of the container in bytes; unset where it has none."""

# Set by the agent for each worker process, beside torch's own variables
# (RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, GROUP_RANK, MASTER_ADDR, MASTER_PORT).
ENV_AGENT_SOCKET = "HEADWAY_AGENT_SOCKET"
"""Path of the Unix socket on which a worker talks to its agent."""
ENV_GENERATION = "HEADWAY_GENERATION"
"""Generation of the worker group that this process belongs to; grows at each restart."""

# --- paths in a pod ---------------------------------------------------------------------------

TOKEN_DIR = "/var/run/secrets/headway.dev"  # noqa: S105
"""Where the projected token volume is mounted."""
TOKEN_FILE = f"{TOKEN_DIR}/token"
"""The token, with the audience of `token_audience`."""
SCRATCH_DIR = "/headway/scratch"
"""Memory volume for state that outlives a container, but not its pod."""
TMP_DIR = "/tmp"  # noqa: S108 (a volume of the pod's own)
"""Volume for temporary files: the root file system is read-only."""
SHM_DIR = "/dev/shm"  # noqa: S108
"""Memory volume for shared memory, of `pod.sharedMemory` or half the memory limit."""
TERMINATION_LOG = "/dev/termination-log"
"""Where the kubelet reads an agent's last words from when its container has ended."""

# --- ports ------------------------------------------------------------------------------------

AGENT_PORT = 29390
"""The lead's agent listens here for the other agents."""
STATE_PORT = 29391
"""Every agent gives other agents of its job checkpoints from its memory here."""
STORE_PORTS = (20000, 28000)
"""TCPStore of generation g: a port of this range that no earlier generation used. Below the
kernel's ephemeral range, so that no outgoing connection takes it."""

# --- the endpoint -----------------------------------------------------------------------------


def token_audience(namespace: str, job: str) -> str:
    """Audience of the projected token of a job's pods (unique to the job, as in KEP-2779)."""
    return f"{API_VERSION}/namespaces/{namespace}/trainingjobs/{job}"


def kubeflow_audience(namespace: str, job: str) -> str:
    """Audience that Kubeflow's clients expect (KEP-2779)."""
    return f"trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs/{job}/status"


def job_path(namespace: str, job: str) -> str:
    """Path of a job on the endpoint; `/join`, `/peers` and `/progress` lie below it."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/trainingjobs/{job}"


def kubeflow_status_path(namespace: str, job: str) -> str:
    """Path to which Kubeflow's clients post progress (KEP-2779)."""
    return f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs/{job}/status"


# --- names --------------------------------------------------------------------------------------

MAX_JOB_NAME = 52
"""63 less our longest suffix (`-<index>`, up to 10 characters with room for other kinds)."""


MAX_SWEEP_NAME = 42
"""What a job's name may have, less a trial's suffix (`-<index>-<run>`, up to 10 characters)."""


def trial_name(sweep: str, index: int, run: int = 0) -> str:
    """Deterministic name of a trial's TrainingJob.

    Args:
        sweep: name of the sweep.
        index: of the configuration.
        run: which of the configuration's repeats; the first has no suffix of its own.
    """
    return f"{sweep}-{index}-{run}" if run else f"{sweep}-{index}"


def lead_hostname(namespace: str, job: str) -> str:
    """Name in the certificate of a job's lead: no DNS knows it, its peers check it."""
    return f"{job}.{namespace}.headway.internal"


def pod_name(job: str, index: int) -> str:
    """Deterministic name of the pod with this stable node rank."""
    return f"{job}-{index}"


def job_root(storage_uri: str, name: str, uid: str) -> str:
    """A job's own root in storage. The UID keeps a recreated job apart from its namesake."""
    return f"{storage_uri.rstrip('/')}/{name}-{uid[:8]}"


class ExitCode(IntEnum):
    """Exit codes of a pod's agent that the operator gives a meaning of its own."""

    DONE = 0
    """Every rank finished."""
    CONFIG = 78
    """Something that a restart never heals (sysexits EX_CONFIG): storage refused, no command."""
    FENCED = 79
    """A newer generation has taken over; this group's pod must not write any more."""
    BUDGET = 80
    """The lead has used up `maxRestarts` in place."""
    PEER_LOST = 81
    """This pod is healthy, but its lead went away for longer than it may wait."""
    PAUSED = 82
    """All ranks have come to `spec.pauseAtStep`, and their checkpoint is committed."""
    PREEMPTED = 143
    """Ended by SIGTERM with its checkpoint committed (128 + SIGTERM); never counted."""
