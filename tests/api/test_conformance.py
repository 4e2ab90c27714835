"""What every `KubeClient` must do, on the cluster in memory and on a real API server alike."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from headway_operator.cluster import kube
from headway_operator.cluster.client import (
    CONFIGMAP,
    CRD,
    NAMESPACE,
    POD,
    SERVICE,
    SERVICE_ACCOUNT,
    AlreadyExists,
    ApiError,
    Conflict,
    Gone,
    Invalid,
    KubeClient,
    NotFound,
    Object,
    Resource,
    WatchEvent,
    api_error,
    custom_resource,
)
from headway_operator.cluster.memory import MemoryCluster

WIDGET = custom_resource("Widget", group="conformance.headway.dev", version="v1")
DEADLINE = 20.0
ANOTHER_UID = "11111111-1111-1111-1111-111111111111"
_numbers = itertools.count()

_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
WIDGET_CRD: Object = {
    "metadata": {"name": f"{WIDGET.plural}.{WIDGET.group}"},
    "spec": {
        "group": WIDGET.group,
        "scope": "Namespaced",
        "names": {"plural": WIDGET.plural, "singular": "widget", "kind": WIDGET.kind},
        "versions": [
            {
                "name": WIDGET.version,
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "size": {"type": "integer", "maximum": 10},
                                    "color": {"type": "string", "default": "blue"},
                                    "parts": {"type": "array", "items": {"type": "string"}},
                                    "options": _STRINGS,
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {"phase": {"type": "string"}, "counts": _STRINGS},
                            },
                        },
                    }
                },
            }
        ],
    },
}


def admit(resource: Resource, new: Object, _old: Object | None) -> Object:
    """What the schema of `WIDGET_CRD` does, for the cluster in memory."""
    if resource != WIDGET or "spec" not in new:
        return new
    if new["spec"].get("size", 0) > 10:
        raise api_error(422, "Invalid", "spec.size should be less than or equal to 10")
    return {**new, "spec": {"color": "blue", **new["spec"]}}


@dataclass
class Lab:
    """A client and a namespace of its own for one test."""

    client: KubeClient
    namespace: str
    memory: MemoryCluster | None = None

    async def create(self, resource: Resource, name: str, **fields: object) -> Object:
        metadata = {"name": name, **fields.pop("metadata", {})}  # type: ignore[dict-item]
        return await self.client.create(resource, self.namespace, {"metadata": metadata, **fields})

    async def widget(self, name: str, **fields: object) -> Object:
        return await self.create(WIDGET, name, **{"spec": {"size": 1}, **fields})

    async def pod(self, name: str, *, bound: bool = False, **metadata: object) -> Object:
        spec: Object = {"containers": [{"name": "main", "image": "example.org/image"}]}
        if bound:
            spec["nodeName"] = "node-1"
        return await self.create(POD, name, metadata=metadata, spec=spec)

    async def get(self, resource: Resource, name: str) -> Object:
        return await self.client.get(resource, self.namespace, name)

    async def patch(self, resource: Resource, name: str, body: Object) -> Object:
        return await self.client.patch(resource, self.namespace, name, body)

    async def patch_status(self, resource: Resource, name: str, status: Object) -> Object:
        body = {"status": status}
        return await self.client.patch(resource, self.namespace, name, body, subresource="status")

    async def delete(self, resource: Resource, name: str, **options: object) -> None:
        await self.client.delete(resource, self.namespace, name, **options)  # type: ignore[arg-type]

    async def exists(self, resource: Resource, name: str) -> bool:
        try:
            await self.get(resource, name)
        except NotFound:
            return False
        return True

    async def version(self, resource: Resource = WIDGET) -> str:
        """The version from which a watch sees only what comes next."""
        return (await self.client.list(resource, namespace=self.namespace)).resource_version


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.apiserver)])
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    namespace = f"conformance-{next(_numbers)}"
    if request.param == "memory":
        memory = MemoryCluster(lambda: datetime.now(UTC), admit=admit)
        yield Lab(memory, namespace, memory)
        return
    server = request.getfixturevalue("api")
    async with kube.connect(server.kubeconfig) as client:
        await serve_widgets(client)
        await client.create(NAMESPACE, None, {"metadata": {"name": namespace}})
        # Nothing else makes it here, and pods are refused without.
        await client.create(SERVICE_ACCOUNT, namespace, {"metadata": {"name": "default"}})
        yield Lab(client, namespace)


async def serve_widgets(client: KubeClient) -> None:
    try:
        await client.create(CRD, None, WIDGET_CRD)
    except AlreadyExists:
        return

    async def served() -> bool:
        try:
            await client.list(WIDGET)
        except NotFound:
            return False
        return True

    await eventually(served)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await condition():  # noqa: ASYNC110 - the condition is the server's
            await asyncio.sleep(0.02)


async def events(lab: Lab, resource: Resource, count: int, **scope: object) -> list[WatchEvent]:
    """The first events of a watch in the lab's namespace, bookmarks left out."""
    seen: list[WatchEvent] = []
    stream = lab.client.watch(resource, namespace=lab.namespace, **scope)  # type: ignore[arg-type]
    async with asyncio.timeout(DEADLINE), aclosing(stream):
        async for event in stream:
            if event.type != "BOOKMARK":
                seen.append(event)
            if len(seen) == count:
                break
    return seen


def told(seen: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(event.type, event.object["metadata"]["name"]) for event in seen]


def names(items: list[Object]) -> list[str]:
    return [item["metadata"]["name"] for item in items]


# --- create ---


async def test_created_object_gets_identity_and_reads_back_the_same(lab: Lab) -> None:
    made = await lab.widget("a")
    metadata = made["metadata"]
    assert made["apiVersion"] == "conformance.headway.dev/v1"
    assert made["kind"] == "Widget"
    assert metadata["namespace"] == lab.namespace
    assert metadata["generation"] == 1
    assert len(metadata["uid"]) == 36
    assert int(metadata["resourceVersion"]) > 0
    age = datetime.now(UTC) - datetime.fromisoformat(metadata["creationTimestamp"])
    assert -2 < age.total_seconds() < DEADLINE
    assert await lab.get(WIDGET, "a") == made


async def test_two_creations_have_different_uids_and_rising_versions(lab: Lab) -> None:
    first, second = await lab.widget("a"), await lab.pod("a")
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert int(first["metadata"]["resourceVersion"]) < int(second["metadata"]["resourceVersion"])


async def test_creating_a_taken_name_says_already_exists_and_keeps_the_first(lab: Lab) -> None:
    await lab.widget("a", spec={"size": 1})
    with pytest.raises(AlreadyExists):
        await lab.widget("a", spec={"size": 2})
    assert (await lab.get(WIDGET, "a"))["spec"]["size"] == 1


async def test_recreated_object_is_another_one(lab: Lab) -> None:
    first = await lab.widget("a")
    await lab.delete(WIDGET, "a")
    second = await lab.widget("a")
    assert first["metadata"]["uid"] != second["metadata"]["uid"]


async def test_generate_name_appends_five_characters(lab: Lab) -> None:
    body = {"metadata": {"generateName": "run-"}}
    made = [await lab.client.create(CONFIGMAP, lab.namespace, body) for _ in range(3)]
    assert len(set(names(made))) == 3
    assert all(name.startswith("run-") and len(name) == 9 for name in names(made))


async def test_object_without_a_name_is_invalid(lab: Lab) -> None:
    with pytest.raises(Invalid):
        await lab.client.create(CONFIGMAP, lab.namespace, {"metadata": {}})


async def test_namespace_of_object_and_request_must_agree(lab: Lab) -> None:
    with pytest.raises(ApiError) as refused:
        await lab.create(CONFIGMAP, "a", metadata={"namespace": "elsewhere"})
    assert refused.value.status == 400


async def test_resource_version_is_refused_on_create(lab: Lab) -> None:
    with pytest.raises(ApiError):
        await lab.create(CONFIGMAP, "a", metadata={"resourceVersion": "5"})


async def test_server_owned_metadata_cannot_be_forged_on_create(lab: Lab) -> None:
    forged = {
        "uid": ANOTHER_UID,
        "generation": 7,
        "creationTimestamp": "2001-01-01T00:00:00Z",
        "deletionTimestamp": "2001-01-01T00:00:00Z",
    }
    made = (await lab.widget("a", metadata=forged))["metadata"]
    assert made["uid"] != forged["uid"]
    assert made["generation"] == 1
    assert made["creationTimestamp"] != forged["creationTimestamp"]
    assert "deletionTimestamp" not in made


async def test_status_given_on_create_is_dropped(lab: Lab) -> None:
    made = await lab.widget("a", status={"phase": "Done"})
    assert "status" not in made


async def test_pods_start_pending_whatever_they_claim(lab: Lab) -> None:
    body = {
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "main", "image": "example.org/image"}]},
        "status": {"phase": "Running"},
    }
    made = await lab.client.create(POD, lab.namespace, body)
    assert made["status"]["phase"] == "Pending"
    assert made["metadata"]["generation"] == 1


@pytest.mark.parametrize("resource", [CONFIGMAP, SERVICE])
async def test_core_kinds_other_than_pods_have_no_generation(lab: Lab, resource: Resource) -> None:
    spec = {"spec": {"clusterIP": "None"}} if resource is SERVICE else {}
    made = await lab.create(resource, "a", **spec)
    assert "generation" not in made["metadata"]


async def test_missing_objects_are_not_found(lab: Lab) -> None:
    with pytest.raises(NotFound):
        await lab.get(WIDGET, "a")
    with pytest.raises(NotFound):
        await lab.patch(WIDGET, "a", {"spec": {"size": 2}})
    with pytest.raises(NotFound):
        await lab.delete(WIDGET, "a")
    with pytest.raises(NotFound):
        await lab.client.pod_log(lab.namespace, "a", tail_lines=3)


# --- admission ---


async def test_schema_defaults_and_refuses_on_create(lab: Lab) -> None:
    assert (await lab.widget("a"))["spec"]["color"] == "blue"
    with pytest.raises(Invalid, match="less than or equal to 10"):
        await lab.widget("b", spec={"size": 11})
    assert not await lab.exists(WIDGET, "b")


async def test_schema_refuses_a_patch_and_the_object_stays(lab: Lab) -> None:
    before = await lab.widget("a")
    with pytest.raises(Invalid):
        await lab.patch(WIDGET, "a", {"spec": {"size": 11}})
    assert await lab.get(WIDGET, "a") == before


# --- patch ---


async def test_merge_patch_sets_removes_and_replaces_lists(lab: Lab) -> None:
    await lab.widget("a", spec={"parts": ["x", "y"], "options": {"one": "1", "two": "2"}})
    patch = {"spec": {"parts": ["z"], "options": {"one": None, "three": "3"}, "size": 4}}
    changed = await lab.patch(WIDGET, "a", patch)
    assert changed["spec"] == {
        "parts": ["z"],
        "options": {"two": "2", "three": "3"},
        "size": 4,
        "color": "blue",
    }
    assert await lab.get(WIDGET, "a") == changed


async def test_generation_rises_with_the_spec_alone(lab: Lab) -> None:
    await lab.widget("a")
    labelled = await lab.patch(WIDGET, "a", {"metadata": {"labels": {"team": "x"}}})
    assert labelled["metadata"]["generation"] == 1
    reported = await lab.patch_status(WIDGET, "a", {"phase": "Ready"})
    assert reported["metadata"]["generation"] == 1
    resized = await lab.patch(WIDGET, "a", {"spec": {"size": 2}})
    assert resized["metadata"]["generation"] == 2


async def test_plain_patch_leaves_status_alone(lab: Lab) -> None:
    await lab.widget("a")
    await lab.patch_status(WIDGET, "a", {"phase": "Ready"})
    patch = {"spec": {"size": 2}, "status": {"phase": "Forged"}}
    changed = await lab.patch(WIDGET, "a", patch)
    assert changed["spec"]["size"] == 2
    assert changed["status"] == {"phase": "Ready"}


async def test_status_patch_leaves_spec_and_labels_alone(lab: Lab) -> None:
    await lab.widget("a")
    body = {"metadata": {"labels": {"x": "y"}}, "spec": {"size": 9}, "status": {"phase": "Ready"}}
    changed = await lab.client.patch(WIDGET, lab.namespace, "a", body, subresource="status")
    assert changed["status"] == {"phase": "Ready"}
    assert changed["spec"]["size"] == 1
    assert "labels" not in changed["metadata"]


async def test_status_patches_merge(lab: Lab) -> None:
    await lab.widget("a")
    await lab.patch_status(WIDGET, "a", {"phase": "Ready", "counts": {"ready": "1", "lost": "2"}})
    changed = await lab.patch_status(WIDGET, "a", {"counts": {"lost": None}})
    assert changed["status"] == {"phase": "Ready", "counts": {"ready": "1"}}


async def test_kinds_without_status_subresource_say_not_found(lab: Lab) -> None:
    await lab.create(CONFIGMAP, "a")
    with pytest.raises(NotFound):
        await lab.patch_status(CONFIGMAP, "a", {"phase": "Ready"})


@pytest.mark.parametrize(
    "patch",
    [
        {},
        {"spec": {"size": 1}},
        {"spec": {"parts": None}},
        {"metadata": {"labels": {}}},
        {"metadata": {"uid": None, "creationTimestamp": None}},
    ],
)
async def test_patch_that_changes_nothing_is_no_write(lab: Lab, patch: Object) -> None:
    before = await lab.widget("a")
    after = await lab.patch(WIDGET, "a", patch)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_status_patch_that_changes_nothing_is_no_write(lab: Lab) -> None:
    await lab.widget("a")
    first = await lab.patch_status(WIDGET, "a", {"phase": "Ready"})
    second = await lab.patch_status(WIDGET, "a", {"phase": "Ready"})
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


@pytest.mark.parametrize("subresource", [None, "status"])
async def test_patch_of_an_older_version_conflicts(lab: Lab, subresource: str | None) -> None:
    old = (await lab.widget("a"))["metadata"]["resourceVersion"]
    new = (await lab.patch(WIDGET, "a", {"spec": {"size": 2}}))["metadata"]["resourceVersion"]

    async def write(version: str, size: int) -> Object:
        body = {
            "metadata": {"resourceVersion": version},
            "spec": {"size": size},
            "status": {"phase": str(size)},
        }
        return await lab.client.patch(WIDGET, lab.namespace, "a", body, subresource=subresource)  # type: ignore[arg-type]

    with pytest.raises(Conflict):
        await write(old, 3)
    changed = await write(new, 4)
    assert changed["status"]["phase"] == "4" if subresource else changed["spec"]["size"] == 4


async def test_patch_of_the_uid_is_invalid(lab: Lab) -> None:
    before = await lab.widget("a")
    with pytest.raises(Invalid):
        await lab.patch(WIDGET, "a", {"metadata": {"uid": ANOTHER_UID}, "spec": {"size": 2}})
    assert await lab.get(WIDGET, "a") == before


async def test_uid_in_a_status_patch_fences_nothing(lab: Lab) -> None:
    await lab.widget("a")
    body = {"metadata": {"uid": ANOTHER_UID}, "status": {"phase": "Ready"}}
    changed = await lab.client.patch(WIDGET, lab.namespace, "a", body, subresource="status")
    assert changed["status"] == {"phase": "Ready"}
    assert changed["metadata"]["uid"] != ANOTHER_UID


async def test_pod_spec_is_fixed_but_for_images(lab: Lab) -> None:
    await lab.pod("a")
    with pytest.raises(Invalid):
        await lab.patch(POD, "a", {"spec": {"nodeName": "node-1"}})
    with pytest.raises(Invalid):
        await lab.patch(POD, "a", {"spec": {"terminationGracePeriodSeconds": 1}})
    await lab.patch(POD, "a", {"spec": {"activeDeadlineSeconds": 60}})


# --- apply ---


async def apply(lab: Lab, data: Object, manager: str = "one", *, force: bool = True) -> Object:
    return await lab.client.apply(
        CONFIGMAP, lab.namespace, "a", {"data": data}, field_manager=manager, force=force
    )


async def test_apply_creates_then_merges_into_what_others_wrote(lab: Lab) -> None:
    made = await apply(lab, {"one": "1"})
    assert made["metadata"]["name"] == "a"
    assert made["data"] == {"one": "1"}
    await lab.patch(CONFIGMAP, "a", {"data": {"two": "2"}})
    changed = await apply(lab, {"one": "changed"})
    assert changed["data"] == {"one": "changed", "two": "2"}


async def test_apply_removes_what_the_same_manager_leaves_out(lab: Lab) -> None:
    await apply(lab, {"one": "1", "two": "2"})
    await apply(lab, {"two": "2"}, manager="other")
    assert (await apply(lab, {}))["data"] == {"two": "2"}


async def test_repeated_apply_is_no_write(lab: Lab) -> None:
    first, second = await apply(lab, {"one": "1"}), await apply(lab, {"one": "1"})
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_apply_without_force_conflicts_over_another_managers_value(lab: Lab) -> None:
    await apply(lab, {"one": "1"})
    with pytest.raises(Conflict):
        await apply(lab, {"one": "2"}, manager="other", force=False)
    assert (await apply(lab, {"one": "2"}, manager="other"))["data"] == {"one": "2"}


async def test_apply_leaves_status_alone(lab: Lab) -> None:
    body = {"spec": {"size": 3}, "status": {"phase": "Forged"}}
    made = await lab.client.apply(WIDGET, lab.namespace, "a", body, field_manager="one")
    assert made["spec"]["size"] == 3
    assert "status" not in made


# --- delete ---


async def test_object_without_finalizers_vanishes_at_once(lab: Lab) -> None:
    await lab.widget("a")
    await lab.delete(WIDGET, "a")
    assert not await lab.exists(WIDGET, "a")


async def test_delete_with_another_uid_conflicts_and_spares_the_object(lab: Lab) -> None:
    made = await lab.widget("a")
    with pytest.raises(Conflict):
        await lab.delete(WIDGET, "a", uid=ANOTHER_UID)
    await lab.delete(WIDGET, "a", uid=made["metadata"]["uid"])
    assert not await lab.exists(WIDGET, "a")


async def test_finalizer_holds_a_deleted_object_until_it_is_removed(lab: Lab) -> None:
    await lab.widget("a", metadata={"finalizers": ["headway.dev/a", "headway.dev/b"]})
    await lab.delete(WIDGET, "a")
    held = (await lab.get(WIDGET, "a"))["metadata"]
    assert "deletionTimestamp" in held
    assert held["deletionGracePeriodSeconds"] == 0
    assert held["generation"] == 2
    await lab.delete(WIDGET, "a")
    assert (await lab.get(WIDGET, "a"))["metadata"] == held
    await lab.patch(WIDGET, "a", {"metadata": {"finalizers": ["headway.dev/b"]}})
    assert await lab.exists(WIDGET, "a")
    await lab.patch(WIDGET, "a", {"metadata": {"finalizers": None}})
    assert not await lab.exists(WIDGET, "a")


async def test_no_finalizer_can_be_added_once_deletion_began(lab: Lab) -> None:
    await lab.widget("a", metadata={"finalizers": ["headway.dev/a"]})
    await lab.delete(WIDGET, "a")
    finalizers = ["headway.dev/a", "headway.dev/late"]
    with pytest.raises(Invalid):
        await lab.patch(WIDGET, "a", {"metadata": {"finalizers": finalizers}})


async def test_deletion_cannot_be_taken_back(lab: Lab) -> None:
    await lab.widget("a", metadata={"finalizers": ["headway.dev/a"]})
    await lab.delete(WIDGET, "a")
    await lab.patch(WIDGET, "a", {"metadata": {"deletionTimestamp": None}, "spec": {"size": 2}})
    assert "deletionTimestamp" in (await lab.get(WIDGET, "a"))["metadata"]


async def test_unbound_pod_vanishes_at_once(lab: Lab) -> None:
    await lab.pod("a")
    await lab.delete(POD, "a")
    assert not await lab.exists(POD, "a")


async def test_bound_pod_stays_until_its_node_confirms(lab: Lab) -> None:
    await lab.pod("a", bound=True)
    await lab.delete(POD, "a")
    held = (await lab.get(POD, "a"))["metadata"]
    assert held["deletionGracePeriodSeconds"] == 30
    left = datetime.fromisoformat(held["deletionTimestamp"]) - datetime.now(UTC)
    assert 30 - DEADLINE < left.total_seconds() <= 30
    await lab.delete(POD, "a")
    assert (await lab.get(POD, "a"))["metadata"] == held
    await lab.delete(POD, "a", grace_seconds=0)
    assert not await lab.exists(POD, "a")


async def test_grace_period_can_only_be_shortened(lab: Lab) -> None:
    await lab.pod("a", bound=True)
    await lab.delete(POD, "a", grace_seconds=20)
    first = (await lab.get(POD, "a"))["metadata"]
    await lab.delete(POD, "a", grace_seconds=25)
    assert (await lab.get(POD, "a"))["metadata"] == first
    await lab.delete(POD, "a", grace_seconds=5)
    second = (await lab.get(POD, "a"))["metadata"]
    assert second["deletionGracePeriodSeconds"] == 5
    sooner = datetime.fromisoformat(first["deletionTimestamp"]) - datetime.fromisoformat(
        second["deletionTimestamp"]
    )
    assert sooner.total_seconds() == 15


async def test_finalizer_holds_a_pod_beyond_its_grace_period(lab: Lab) -> None:
    await lab.pod("a", bound=True, finalizers=["headway.dev/a"])
    await lab.delete(POD, "a", grace_seconds=0)
    assert await lab.exists(POD, "a")
    await lab.patch(POD, "a", {"metadata": {"finalizers": None}})
    assert not await lab.exists(POD, "a")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_finished_pod_vanishes_at_once(lab: Lab, phase: str) -> None:
    await lab.pod("a", bound=True)
    await lab.patch_status(POD, "a", {"phase": phase})
    await lab.delete(POD, "a")
    assert not await lab.exists(POD, "a")


async def test_status_of_a_terminating_pod_can_still_be_reported(lab: Lab) -> None:
    await lab.pod("a", bound=True)
    await lab.delete(POD, "a")
    changed = await lab.patch_status(POD, "a", {"phase": "Failed"})
    assert changed["status"]["phase"] == "Failed"
    assert "deletionTimestamp" in changed["metadata"]


# --- owners ---


def owned_by(*owners: Object) -> Object:
    return {
        "ownerReferences": [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
            }
            for owner in owners
        ]
    }


async def gone(lab: Lab, resource: Resource, name: str) -> None:
    async def absent() -> bool:
        return not await lab.exists(resource, name)

    await eventually(absent)


async def test_dependents_of_a_deleted_owner_go_too(lab: Lab) -> None:
    owner = await lab.create(CONFIGMAP, "owner")
    child = await lab.create(CONFIGMAP, "child", metadata=owned_by(owner))
    await lab.create(SERVICE_ACCOUNT, "grandchild", metadata=owned_by(child))
    await lab.create(CONFIGMAP, "stranger")
    await lab.delete(CONFIGMAP, "owner")
    await gone(lab, CONFIGMAP, "child")
    await gone(lab, SERVICE_ACCOUNT, "grandchild")
    assert await lab.exists(CONFIGMAP, "stranger")


async def test_bound_pod_of_a_deleted_owner_gets_its_grace_period(lab: Lab) -> None:
    owner = await lab.create(CONFIGMAP, "owner")
    await lab.pod("child", bound=True, **owned_by(owner))
    await lab.delete(CONFIGMAP, "owner")

    async def terminating() -> bool:
        return "deletionTimestamp" in (await lab.get(POD, "child"))["metadata"]

    await eventually(terminating)


async def test_dependent_of_two_owners_stays_until_both_are_gone(lab: Lab) -> None:
    one, two = await lab.create(CONFIGMAP, "one"), await lab.create(CONFIGMAP, "two")
    await lab.create(CONFIGMAP, "child", metadata=owned_by(one, two))
    await lab.delete(CONFIGMAP, "one")

    async def disowned() -> bool:
        references = (await lab.get(CONFIGMAP, "child"))["metadata"]["ownerReferences"]
        return [reference["name"] for reference in references] == ["two"]

    await eventually(disowned)
    await lab.delete(CONFIGMAP, "two")
    await gone(lab, CONFIGMAP, "child")


async def test_dependent_created_after_its_owners_end_is_collected(lab: Lab) -> None:
    owner = await lab.create(CONFIGMAP, "owner")
    await lab.delete(CONFIGMAP, "owner")
    await lab.create(CONFIGMAP, "late", metadata=owned_by(owner))
    await gone(lab, CONFIGMAP, "late")


async def test_orphaning_leaves_dependents_without_an_owner(lab: Lab) -> None:
    owner = await lab.create(CONFIGMAP, "owner")
    await lab.create(CONFIGMAP, "child", metadata=owned_by(owner))
    await lab.delete(CONFIGMAP, "owner", propagation="Orphan")
    await gone(lab, CONFIGMAP, "owner")
    assert "ownerReferences" not in (await lab.get(CONFIGMAP, "child"))["metadata"]


# --- list ---


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, ["a", "b", "c"]),
        ("team=x", ["a"]),
        ("team==x", ["a"]),
        ("team!=x", ["b", "c"]),
        ("team", ["a", "b"]),
        ("!team", ["c"]),
        ("team in (x, y),tier=1", ["a"]),
        ("team notin (x)", ["b", "c"]),
        ("team,tier notin (1,3)", ["b"]),
    ],
)
async def test_label_selectors(lab: Lab, selector: str | None, expected: list[str]) -> None:
    for name, labels in (("a", {"team": "x", "tier": "1"}), ("b", {"team": "y"}), ("c", {})):
        await lab.create(CONFIGMAP, name, metadata={"labels": labels})
    found = await lab.client.list(CONFIGMAP, namespace=lab.namespace, label_selector=selector)
    assert names(found.items) == expected


async def test_unreadable_selector_is_a_bad_request(lab: Lab) -> None:
    await lab.create(CONFIGMAP, "a")
    with pytest.raises(ApiError) as refused:
        await lab.client.list(CONFIGMAP, namespace=lab.namespace, label_selector="a = = b")
    assert refused.value.status == 400


async def test_listed_items_know_their_kind_and_equal_what_get_returns(lab: Lab) -> None:
    await lab.pod("a")
    (item,) = (await lab.client.list(POD, namespace=lab.namespace)).items
    assert item == await lab.get(POD, "a")
    assert (item["apiVersion"], item["kind"]) == ("v1", "Pod")


async def test_list_of_all_namespaces_finds_this_one(lab: Lab) -> None:
    await lab.widget("a")
    found = (await lab.client.list(WIDGET)).items
    assert (lab.namespace, "a") in [
        (item["metadata"]["namespace"], item["metadata"]["name"]) for item in found
    ]


async def test_long_lists_are_complete_and_in_order(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "PAGE", 2)
    for index in range(5):
        await lab.create(CONFIGMAP, f"c{index}")
    found = await lab.client.list(CONFIGMAP, namespace=lab.namespace)
    assert names(found.items) == [f"c{index}" for index in range(5)]


async def test_list_at_a_version_is_at_least_that_new(lab: Lab) -> None:
    version = (await lab.widget("a"))["metadata"]["resourceVersion"]
    found = await lab.client.list(WIDGET, namespace=lab.namespace, resource_version=version)
    assert names(found.items) == ["a"]
    assert int(found.resource_version) >= int(version)


# --- watch ---


async def test_watch_from_a_list_sees_each_later_change_in_order(lab: Lab) -> None:
    await lab.widget("before")
    start = await lab.version()
    made = await lab.widget("a")
    changed = await lab.patch(WIDGET, "a", {"spec": {"size": 2}})
    reported = await lab.patch_status(WIDGET, "a", {"phase": "Ready"})
    await lab.delete(WIDGET, "a")
    seen = await events(lab, WIDGET, 4, resource_version=start)
    assert [event.type for event in seen] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
    assert [event.object for event in seen[:3]] == [made, changed, reported]
    last = seen[3].object
    assert last["status"] == {"phase": "Ready"}
    assert int(last["metadata"]["resourceVersion"]) > int(reported["metadata"]["resourceVersion"])


async def test_watch_from_nothing_begins_with_what_exists(lab: Lab) -> None:
    await lab.widget("a")
    await lab.widget("b")
    assert told(await events(lab, WIDGET, 2)) == [("ADDED", "a"), ("ADDED", "b")]


async def test_watch_waits_for_changes_to_come(lab: Lab) -> None:
    start = await lab.version()
    waiting = asyncio.create_task(events(lab, WIDGET, 2, resource_version=start))
    await lab.widget("a")
    await lab.delete(WIDGET, "a")
    assert told(await waiting) == [("ADDED", "a"), ("DELETED", "a")]


async def test_watch_resumes_after_the_last_version_seen(lab: Lab) -> None:
    start = await lab.version()
    await lab.widget("a")
    await lab.widget("b")
    (first,) = await events(lab, WIDGET, 1, resource_version=start)
    resumed = first.object["metadata"]["resourceVersion"]
    assert told(await events(lab, WIDGET, 1, resource_version=resumed)) == [("ADDED", "b")]


async def test_watch_keeps_to_its_namespace(lab: Lab) -> None:
    other = f"{lab.namespace}-other"
    await lab.client.create(NAMESPACE, None, {"metadata": {"name": other}})
    start = await lab.version(CONFIGMAP)
    await lab.client.create(CONFIGMAP, other, {"metadata": {"name": "theirs"}})
    await lab.create(CONFIGMAP, "ours")
    assert told(await events(lab, CONFIGMAP, 1, resource_version=start)) == [("ADDED", "ours")]


async def test_objects_enter_and_leave_a_selected_watch(lab: Lab) -> None:
    start = await lab.version(CONFIGMAP)
    await lab.create(CONFIGMAP, "a")
    await lab.patch(CONFIGMAP, "a", {"metadata": {"labels": {"team": "x"}}})
    await lab.patch(CONFIGMAP, "a", {"data": {"k": "v"}})
    left = await lab.patch(CONFIGMAP, "a", {"metadata": {"labels": None}})
    await lab.patch(CONFIGMAP, "a", {"metadata": {"labels": {"team": "x"}}})
    await lab.delete(CONFIGMAP, "a")
    seen = await events(lab, CONFIGMAP, 5, label_selector="team=x", resource_version=start)
    kinds = [event.type for event in seen]
    assert kinds == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    metadata = seen[2].object["metadata"]
    assert metadata["labels"] == {"team": "x"}, "a leaver is shown as it was last inside"
    assert metadata["resourceVersion"] == left["metadata"]["resourceVersion"]


async def test_watch_sees_a_pods_deletion_begin_shorten_and_end(lab: Lab) -> None:
    start = await lab.version(POD)
    await lab.pod("a", bound=True)
    await lab.delete(POD, "a", grace_seconds=3)
    await lab.delete(POD, "a", grace_seconds=0)
    seen = await events(lab, POD, 4, resource_version=start)
    assert [event.type for event in seen] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
    graces = [event.object["metadata"].get("deletionGracePeriodSeconds") for event in seen]
    assert graces == [None, 3, 0, 0]


@pytest.mark.parametrize("bound", [False, True])
async def test_watch_sees_a_forced_deletion_begin_and_end(lab: Lab, bound: bool) -> None:
    start = await lab.version(POD)
    await lab.pod("a", bound=bound)
    await lab.delete(POD, "a", grace_seconds=0)
    seen = await events(lab, POD, 3, resource_version=start)
    assert [event.type for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert seen[2].object["metadata"]["deletionGracePeriodSeconds"] == 0


async def test_terminating_pod_that_finished_waits_for_its_node_all_the_same(lab: Lab) -> None:
    await lab.pod("a", bound=True)
    await lab.delete(POD, "a")
    await lab.patch_status(POD, "a", {"phase": "Failed"})
    await lab.delete(POD, "a")
    assert await lab.exists(POD, "a")
    await lab.delete(POD, "a", grace_seconds=0)
    assert not await lab.exists(POD, "a")


async def test_removed_finalizer_ends_in_one_deletion(lab: Lab) -> None:
    await lab.widget("a", metadata={"finalizers": ["headway.dev/a"]})
    await lab.delete(WIDGET, "a")
    start = await lab.version()
    await lab.patch(WIDGET, "a", {"metadata": {"finalizers": None}})
    await lab.widget("b")
    seen = await events(lab, WIDGET, 2, resource_version=start)
    assert told(seen) == [("DELETED", "a"), ("ADDED", "b")]


async def test_patch_that_changes_nothing_is_no_event(lab: Lab) -> None:
    await lab.widget("a")
    start = await lab.version()
    await lab.patch(WIDGET, "a", {"spec": {"size": 1}})
    await lab.widget("b")
    assert told(await events(lab, WIDGET, 1, resource_version=start)) == [("ADDED", "b")]


async def test_watch_ends_by_itself_and_bookmarks_what_it_did_not_show(lab: Lab) -> None:
    start = await lab.version()
    await lab.widget("shown", metadata={"labels": {"team": "x"}})
    stream = lab.client.watch(
        WIDGET,
        namespace=lab.namespace,
        label_selector="team=x",
        resource_version=start,
        timeout_seconds=5,
    )
    async with asyncio.timeout(DEADLINE):
        assert (await anext(stream)).object["metadata"]["name"] == "shown"
        unseen = await lab.widget("unseen")
        rest = [event async for event in stream]
    assert {event.type for event in rest} == {"BOOKMARK"}
    bookmark = rest[-1].object["metadata"]
    assert int(bookmark["resourceVersion"]) >= int(unseen["metadata"]["resourceVersion"])


async def test_watch_from_a_forgotten_version_is_gone(lab: Lab) -> None:
    await lab.widget("a")
    if lab.memory:
        lab.memory.compact()
    with pytest.raises(Gone):
        await events(lab, WIDGET, 1, resource_version="1")
