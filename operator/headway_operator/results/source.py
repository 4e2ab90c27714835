"""Where a sweep's objects are read from: a cluster, the state of local mode, or a file."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from headway_api import contract
from headway_operator.cluster.client import ApiError, Forbidden, NotFound, Object
from headway_operator.resources import SWEEP, SWEEP_RECORD, TRAINING_JOB
from headway_operator.results.errors import ResultsError
from headway_operator.results.findings import Findings, findings

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""In C where it is there: a thousand trials are many megabytes of YAML."""
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Source:
    """What the command line says about where to read.

    Attributes:
        file: of objects as YAML or JSON; `-` for stdin.
        state: folder of `headway sweep run`.
        namespace: of the sweep.
        context: of the kubeconfig.
    """

    file: str | None = None
    state: Path | None = None
    namespace: str | None = None
    context: str | None = None

    def read(self, *names: str) -> tuple[list[Findings], str]:
        """Read sweeps, all from one kind of place.

        Without a word about where, what `headway sweep run` keeps here comes before the cluster.

        Returns:
            The sweeps in order, and where they were read from.

        Raises:
            ResultsError: nothing can be read.
            ResultsError: one of the sweeps is not there.
        """
        now = datetime.now(UTC)
        if self.file is not None:
            items, where = _documents(_text(self.file)), self.file
            return [findings(items, name, now, self.namespace) for name in names], where
        states = [self.state or Path(".headway") / name for name in names]
        told = self.namespace is not None or self.context is not None
        if self.state is not None or (not told and all(map(_has_state, states))):
            found = [
                findings(_saved(folder), name, now, self.namespace)
                for folder, name in zip(states, names, strict=True)
            ]
            return found, ", ".join(dict.fromkeys(str(folder) for folder in states))
        return asyncio.run(self._from_cluster(names, now))

    async def _from_cluster(
        self, names: tuple[str, ...], now: datetime
    ) -> tuple[list[Findings], str]:
        # The client of Kubernetes takes as long to load as all the rest of this command.
        from kubernetes.aio.config import ConfigException  # noqa: PLC0415

        from headway_operator.cluster.kube import connect  # noqa: PLC0415

        namespace = self.namespace or _default_namespace(self.context)
        try:
            async with connect(context=self.context) as client:
                sweeps = (await client.list(SWEEP, namespace=namespace)).items
                found = []
                for name in names:
                    selector = f"{contract.LABEL_SWEEP}={name}"
                    parts = [
                        (
                            await client.list(kind, namespace=namespace, label_selector=selector)
                        ).items
                        for kind in (TRAINING_JOB, SWEEP_RECORD)
                    ]
                    items = [*sweeps, *(item for part in parts for item in part)]
                    found.append(findings(items, name, now, namespace))
        except ConfigException as error:
            raise ResultsError(
                f"{error}; or read what a local run keeps (--state), or a file (--file)"
            ) from None
        except Forbidden as error:
            raise ResultsError(
                f"{error.message}: the role needs get and list of sweeps, trainingjobs and "
                "sweeprecords"
            ) from None
        except NotFound:
            raise ResultsError(
                "this cluster does not know Sweeps: install Headway's CRDs"
            ) from None
        except ApiError as error:
            raise ResultsError(error.message) from None
        return found, f"namespace {namespace}"


def _text(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(
            f"can't read {file}: {getattr(error, 'strerror', None) or error}"
        ) from None


def _documents(text: str) -> list[Object]:
    try:
        if text.lstrip().startswith("{"):
            return [json.loads(text)]
        return [each for each in yaml.load_all(text, _LOADER) if each is not None]
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise ResultsError(
            f"the file is neither YAML nor JSON: {error}; make one by "
            "`kubectl get sweeps,trainingjobs,sweeprecords -o yaml`"
        ) from None


def _has_state(folder: Path) -> bool:
    return (folder / "cluster.json").is_file()


def _saved(folder: Path) -> list[Object]:
    """The objects that local mode keeps in a folder."""
    try:
        saved = json.loads((folder / "cluster.json").read_text())
        return [item for part in saved["collections"] for item in part["objects"]]
    except FileNotFoundError:
        raise ResultsError(
            f"{folder} is no state folder of `headway sweep run`: it has no cluster.json"
        ) from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"can't read the state in {folder}: {error}") from None


def _default_namespace(context: str | None) -> str:
    """That of the context, as kubectl takes it, or of the pod that this is."""
    from kubernetes.aio.config import ConfigException, list_kube_config_contexts  # noqa: PLC0415

    if context is None and "KUBERNETES_SERVICE_HOST" in os.environ and _SERVICE_ACCOUNT.exists():
        return _SERVICE_ACCOUNT.read_text().strip()
    try:
        every, current = list_kube_config_contexts()  # type: ignore[no-untyped-call]
    except ConfigException:
        return "default"
    chosen: Mapping[str, Any] = next((each for each in every if each["name"] == context), current)
    return str((chosen or {}).get("context", {}).get("namespace") or "default")
