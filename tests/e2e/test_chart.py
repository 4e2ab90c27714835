"""The chart: what it makes is well formed, restricted, and may do no more than it must."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml
from kindcluster import OPERATOR, ROOT, SYSTEM, Cluster, Object, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

CHART = "charts/headway"
VARIANTS = {
    "defaults": (),
    "one replica": ("--set", "replicas=1"),
    "two namespaces": ("--set", "watchNamespaces={default,kube-public}"),
    "pools": ("--set-json", 'pools={"a100":{"perNode":8,"nodeSelector":{"gpu":"a100"}}}'),
    "digest": ("--set", f"image.digest=sha256:{'0' * 64}"),
    "scheduling": ("--set-json", 'tolerations=[{"key":"x","operator":"Exists"}]'),
}


def render(*arguments: str) -> list[Object]:
    text = run("helm", "template", "headway", CHART, "--namespace", SYSTEM, *arguments)
    return [item for item in yaml.safe_load_all(text) if item]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [item for item in objects if item["kind"] == kind]


def operator_pod(objects: list[Object]) -> Object:
    (deployment,) = of_kind(objects, "Deployment")
    pod: Object = deployment["spec"]["template"]
    return pod


def test_chart_lints_without_warnings() -> None:
    run("helm", "lint", "--strict", CHART)


@pytest.mark.parametrize(
    "setting",
    ["replicaz=3", "replicas=-1", "logLevel=loud", "image.digest=latest", "pools.A_B.perNode=1"],
)
def test_schema_refuses_a_wrong_value(setting: str) -> None:
    done = subprocess.run(
        ["helm", "template", "headway", CHART, "--set", setting],
        cwd=ROOT, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_api_server_accepts_every_object(cluster: Cluster, variant: str) -> None:
    objects = render(*VARIANTS[variant])
    text = "\n---\n".join(json.dumps(item) for item in objects)
    cluster.kubectl(
        "apply", "--dry-run=server", "--server-side", "--force-conflicts", "-f-", stdin=text
    )


def test_operator_pod_meets_the_restricted_standard(cluster: Cluster) -> None:
    namespace = cluster.get("namespace", SYSTEM)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = operator_pod(render())
    body = {"apiVersion": "v1", "kind": "Pod", "spec": pod["spec"]}
    body["metadata"] = {"name": "probe", "namespace": SYSTEM}
    cluster.kubectl("create", "--dry-run=server", "-f-", stdin=json.dumps(body))
    body["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(AssertionError, match="violates PodSecurity"):  # the check does check
        cluster.kubectl("create", "--dry-run=server", "-f-", stdin=json.dumps(body))


def test_operator_root_file_system_is_read_only() -> None:
    for container in operator_pod(render())["spec"]["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_no_role_has_a_wildcard() -> None:
    roles = of_kind(render(), "ClusterRole") + of_kind(render(), "Role")
    assert roles
    for role in roles:
        for rule in role["rules"]:
            assert "*" not in [
                *rule.get("resources", []),
                *rule["verbs"],
                *rule.get("apiGroups", []),
            ]


@pytest.mark.parametrize(
    ("verb", "resource", "more"),
    [
        ("watch", "trainingjobs.headway.dev", ("--all-namespaces",)),
        ("delete", "trainingjobs.headway.dev", ("--namespace=default",)),
        ("patch", "trainingjobs.headway.dev", ("--subresource=status", "--namespace=default")),
        # A sweep makes its trials' jobs and moves the step at which they pause.
        ("create", "trainingjobs.headway.dev", ("--namespace=default",)),
        ("patch", "trainingjobs.headway.dev", ("--namespace=default",)),
        ("watch", "sweeps.headway.dev", ("--all-namespaces",)),
        ("patch", "sweeps.headway.dev", ("--subresource=status", "--namespace=default")),
        ("create", "sweeprecords.headway.dev", ("--namespace=default",)),
        # Without it, clusters that guard owner references refuse our pods.
        ("update", "trainingjobs.headway.dev", ("--subresource=finalizers", "--namespace=default")),
        ("get", "clustertrainingruntimes.headway.dev", ()),
        ("create", "pods", ("--namespace=default",)),
        ("delete", "pods", ("--namespace=default",)),
        ("create", "events", ("--namespace=default",)),
        ("watch", "nodes", ()),
        ("patch", f"leases.coordination.k8s.io/{OPERATOR}", (f"--namespace={SYSTEM}",)),
        ("get", "secrets/headway-endpoint", (f"--namespace={SYSTEM}",)),
        ("get", "/openid/v1/jwks", ()),
    ],
)
def test_operator_may_do_what_it_must(
    cluster: Cluster, verb: str, resource: str, more: tuple[str, ...]
) -> None:
    assert cluster.can(verb, resource, *more)


@pytest.mark.parametrize(
    ("verb", "resource", "more"),
    [
        ("get", "secrets/s3-credentials", ("--namespace=default",)),
        ("list", "secrets", (f"--namespace={SYSTEM}",)),
        ("get", "secrets/another", (f"--namespace={SYSTEM}",)),
        ("create", "secrets", ("--namespace=default",)),
        ("update", "trainingjobs.headway.dev", ("--namespace=default",)),
        ("create", "sweeps.headway.dev", ("--namespace=default",)),
        ("patch", "sweeps.headway.dev", ("--namespace=default",)),
        ("patch", "pods", ("--namespace=default",)),
        ("create", "pods", ("--subresource=exec", "--namespace=default")),
        ("create", "deployments.apps", ("--namespace=default",)),
        ("patch", "nodes", ()),
        ("patch", "leases.coordination.k8s.io/another", (f"--namespace={SYSTEM}",)),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io", ()),
    ],
)
def test_operator_may_not_do_more(
    cluster: Cluster, verb: str, resource: str, more: tuple[str, ...]
) -> None:
    assert not cluster.can(verb, resource, *more)


def test_with_watch_namespaces_no_right_on_pods_is_cluster_wide() -> None:
    objects = render(*VARIANTS["two namespaces"])
    wide = {item["roleRef"]["name"] for item in of_kind(objects, "ClusterRoleBinding")}
    granted = [
        resource
        for role in of_kind(objects, "ClusterRole")
        if role["metadata"]["name"] in wide
        for rule in role["rules"]
        for resource in rule.get("resources", [])
    ]
    assert sorted(granted) == [
        "clustertrainingruntimes",
        "nodes",
        "priorityclasses",
        "resourceflavors",
    ]
    bound = {item["metadata"]["namespace"] for item in of_kind(objects, "RoleBinding")}
    assert bound == {"default", "kube-public", SYSTEM}


def test_users_of_a_namespace_may_run_jobs_but_not_write_status() -> None:
    roles = {role["metadata"]["name"]: role for role in of_kind(render(), "ClusterRole")}
    edit = roles[f"{OPERATOR}-edit"]
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert [rule["resources"] for rule in edit["rules"]] == [["trainingjobs", "sweeps"]]
