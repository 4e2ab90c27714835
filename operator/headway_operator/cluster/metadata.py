"""What the API server alone decides in an object's metadata.

Source: `pkg/registry/rest` of k8s.io/apiserver.
"""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from .client import Object, Resource, api_error

_OWN: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_DROPPED_WHEN_EMPTY: Final = ("labels", "annotations", "finalizers", "ownerReferences")
_SUFFIX_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds, as the API server writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def counted_uid(number: int) -> str:
    """A uid that is the same in every run: deterministic, unique within one cluster."""
    return str(UUID(int=(4 << 76) | (8 << 60) | number))


def name_suffix(number: int) -> str:
    """Five characters for `generateName`, unlike those of the numbers nearby."""
    scrambled, letters = number * 2_654_435_761 % len(_SUFFIX_ALPHABET) ** 5, []
    for _ in range(5):
        scrambled, index = divmod(scrambled, len(_SUFFIX_ALPHABET))
        letters.append(_SUFFIX_ALPHABET[index])
    return "".join(letters)


def has_generation(resource: Resource) -> bool:
    """Whether the kind counts changes of its spec: custom kinds and, of the core, pods."""
    return resource.has_status and (bool(resource.group) or resource.plural == "pods")


def stamped(
    body: Object, resource: Resource, namespace: str | None, *, uid: str, suffix: str, now: datetime
) -> Object:
    """A new object as it is stored, short of its version.

    Raises:
        ApiError: 400, it belongs to another namespace or brings a resourceVersion.
        Invalid: it has no name.
    """
    given = body.get("metadata") or {}
    if namespace != given.get("namespace", namespace):
        raise api_error(
            400, "BadRequest", "the namespace of the object does not match that of the request"
        )
    if given.get("resourceVersion"):
        raise api_error(
            400, "BadRequest", "resourceVersion should not be set on objects to be created"
        )
    prefix = given.get("generateName")
    name = given.get("name") or (f"{prefix}{suffix}" if prefix else "")
    if not name:
        raise api_error(422, "Invalid", "name or generateName is required")
    metadata = {key: value for key, value in given.items() if key not in _OWN}
    metadata |= {"name": name, "uid": uid, "creationTimestamp": timestamp(now)}
    if namespace is not None:
        metadata["namespace"] = namespace
    if has_generation(resource):
        metadata["generation"] = 1
    identity = {"apiVersion": resource.api_version, "kind": resource.kind}
    return {**body, **identity, "metadata": compact(metadata)}


def check_version(body: Object, old: Object) -> None:
    """Refuse a write meant for another version of the object.

    Raises:
        Conflict: the versions differ.
    """
    given, held = (item.get("metadata", {}).get("resourceVersion") for item in (body, old))
    if given not in {None, held}:
        raise conflict(old["metadata"]["name"], f"resourceVersion is {held}, not {given}")


def check_uid(uid: str | None, item: Object) -> None:
    """Refuse to delete another object of the same name.

    Raises:
        Conflict: the uids differ.
    """
    held = item["metadata"]["uid"]
    if uid not in {None, held}:
        raise conflict(item["metadata"]["name"], f"uid is {held}, not {uid}")


def conflict(name: str, message: str) -> Exception:
    """The Conflict of a failed precondition."""
    return api_error(
        409, "Conflict", f"Operation cannot be fulfilled on {name!r}: {message}; read it again"
    )


def restored(new: Object, old: Object) -> Object:
    """An update with the server's own metadata put back.

    Raises:
        Invalid: the uid changes, or a finalizer is added to an object that is being deleted.
    """
    held = old["metadata"]
    if new["metadata"].get("uid", held["uid"]) != held["uid"]:
        raise api_error(422, "Invalid", "metadata.uid: Invalid value: field is immutable")
    metadata = {key: value for key, value in new["metadata"].items() if key not in _OWN}
    metadata |= {key: held[key] for key in _OWN if key in held}
    if "deletionTimestamp" in held:
        added = set(metadata.get("finalizers") or ()) - set(held.get("finalizers") or ())
        if added:
            raise api_error(
                422,
                "Invalid",
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is "
                f"being deleted, found new finalizers {sorted(added)}",
            )
    identity = {key: old[key] for key in ("apiVersion", "kind")}
    return {**new, **identity, "metadata": compact(metadata)}


def regenerated(new: Object, old: Object) -> Object:
    """An update with its generation raised if more than metadata and status changed."""
    if "generation" not in old["metadata"] or _desired(new) == _desired(old):
        return new
    return with_metadata(new, generation=old["metadata"]["generation"] + 1)


def with_metadata(item: Object, **fields: object) -> Object:
    """A copy of an object with some metadata fields set."""
    return {**item, "metadata": compact({**item["metadata"], **fields})}


def compact(metadata: Object) -> Object:
    """Metadata without empty lists and maps, which the API server does not keep."""
    return {
        key: value for key, value in metadata.items() if value or key not in _DROPPED_WHEN_EMPTY
    }


def _desired(item: Object) -> Object:
    return {key: value for key, value in item.items() if key not in {"metadata", "status"}}
