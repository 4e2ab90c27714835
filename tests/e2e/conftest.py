"""One cluster for all e2e tests, and a namespace with restricted pod security for each."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator

import kindcluster
import pytest
from kindcluster import Cluster, wait_for
from trainingjobs import LABEL, Job


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster `headway-e2e`; deleted at the end unless HEADWAY_E2E_KEEP=1."""
    missing = [tool for tool in ("docker", "kind", "kubectl", "helm") if not shutil.which(tool)]
    if missing:
        pytest.skip(f"e2e tests need {', '.join(missing)} on PATH")
    try:
        yield kindcluster.bring_up()
    finally:
        kindcluster.tear_down()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace that refuses pods short of the restricted standard, with S3 keys."""
    name = request.node.name.removeprefix("test_").translate(str.maketrans("_[ ", "---", "]"))
    name = f"e2e-{name}"[:63].rstrip("-")
    # One left over from a run that was broken off.
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=90s")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    keys = cluster.get("secret", "s3-credentials", "--namespace=default")["data"]
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s3-credentials", "namespace": name},
            "data": keys,
        },
    )
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def job(cluster: Cluster, namespace: str) -> Iterator[Job]:
    """The digits job, not yet started. At the end it is deleted, and must leave nothing."""
    cluster.wait_for_operator()
    job = Job(cluster, namespace)
    yield job
    job.kubectl("delete", job.ref, "--ignore-not-found", "--timeout=90s")
    assert_nothing_left(job)


def assert_nothing_left(job: Job) -> None:
    """Nothing of any kind has the job's label once the job is gone."""
    kinds = job.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    listing = ("get", ",".join(kinds), "--selector", f"{LABEL}={job.name}", "--output=name")
    wait_for(lambda: not job.kubectl(*listing).strip(), 60, f"nothing of {job.name} is left")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep logs of the cluster when a test fails."""
    report = yield
    if report.failed and kindcluster.KUBECONFIG.exists():
        folder = kindcluster.ROOT / ".headway/e2e" / f"{item.name}.{call.when}"
        try:
            kindcluster.dump_logs(folder)
            report.sections.append(("cluster", f"objects and logs are in {folder}"))
        except (AssertionError, OSError) as error:
            report.sections.append(("cluster", f"no logs: {error}"))
    return report
