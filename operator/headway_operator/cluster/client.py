"""What the operator asks of a cluster: the `KubeClient` protocol, its values and its errors.

Objects are plain JSON dicts, as the API server sent them. Those handed out by a client may be
shared with others (a watch, a cache): treat them as read-only and build new ones.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

Object: TypeAlias = dict[str, Any]
EventType: TypeAlias = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
Propagation: TypeAlias = Literal["Background", "Orphan"]
Subresource: TypeAlias = Literal["status"]


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object and where the API server keeps it.

    Attributes:
        group: API group; empty for the core group.
        version: API version, such as `v1alpha1`.
        plural: the name in paths, such as `trainingjobs`.
        kind: the name in objects, such as `TrainingJob`.
        namespaced: false for cluster-wide kinds, whose namespace is `None` in every call.
        has_status: whether status is a subresource, so that plain writes leave it alone.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    has_status: bool = True

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version


def custom_resource(
    kind: str,
    *,
    group: str = "headway.dev",
    version: str = "v1alpha1",
    plural: str | None = None,
    namespaced: bool = True,
) -> Resource:
    """The resource of a custom kind; `plural` is the lower-case kind and an "s" unless given."""
    return Resource(group, version, plural or f"{kind.lower()}s", kind, namespaced)


POD: Final = Resource("", "v1", "pods", "Pod")
SERVICE: Final = Resource("", "v1", "services", "Service")
CONFIGMAP: Final = Resource("", "v1", "configmaps", "ConfigMap", has_status=False)
SECRET: Final = Resource("", "v1", "secrets", "Secret", has_status=False)
SERVICE_ACCOUNT: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount", has_status=False)
EVENT: Final = Resource("", "v1", "events", "Event", has_status=False)
NODE: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACE: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
LEASE: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease", has_status=False)
PRIORITY_CLASS: Final = Resource(
    "scheduling.k8s.io",
    "v1",
    "priorityclasses",
    "PriorityClass",
    namespaced=False,
    has_status=False,
)
CRD: Final = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)


@dataclass(frozen=True, slots=True)
class Listing:
    """All matching objects at one moment, and the version from which a watch goes on."""

    items: list[Object]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. A BOOKMARK's object holds only `metadata.resourceVersion`."""

    type: EventType
    object: Object


class ApiError(Exception):
    """The API server said no, or did not answer.

    Attributes:
        status: HTTP status; 0 where no answer came.
        reason: machine-readable reason of the Status object, such as `AlreadyExists`.
        message: the server's sentence.
        retry_after: seconds to wait before the next try, where the server named them.
    """

    def __init__(
        self, status: int, reason: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class Forbidden(ApiError):  # noqa: N818 - the reasons of the protocol are the names here
    """403: a role is missing, a quota is used up or admission refused."""


class NotFound(ApiError):  # noqa: N818
    """404: no such object or no such kind."""


class AlreadyExists(ApiError):  # noqa: N818
    """409 on create: the name is taken. After a crash, the normal answer."""


class Conflict(ApiError):  # noqa: N818
    """409: the object has changed since it was read, or is another one under the same name."""


class Gone(ApiError):  # noqa: N818
    """410: this resourceVersion is older than what the server remembers. List again."""


class Invalid(ApiError):  # noqa: N818
    """422: the object breaks its schema or a validation rule."""


class TooManyRequests(ApiError):  # noqa: N818
    """429: the server sheds load, or a fresh kind is not served yet."""


class Unavailable(ApiError):  # noqa: N818
    """5xx, a lost connection or a time-out. Whether the request was carried out is unknown."""


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def api_error(status: int, reason: str, message: str, retry_after: float | None = None) -> ApiError:
    """The error of the class that fits an HTTP status and a reason."""
    if reason == "AlreadyExists":
        kind: type[ApiError] = AlreadyExists
    elif status >= 500:
        kind = Unavailable
    else:
        kind = _BY_STATUS.get(status, ApiError)
    return kind(status, reason, message, retry_after)


class KubeClient(Protocol):
    """A cluster. Every method raises `ApiError` or one of its subclasses.

    `namespace` is `None` for cluster-wide kinds; in `list` and `watch` it means all namespaces.
    Semantics are the API server's: https://kubernetes.io/docs/reference/using-api/api-concepts/
    """

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Read one object.

        Raises:
            NotFound: there is none of this name.
        """
        ...

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        resource_version: str | None = None,
    ) -> Listing:
        """Read all matching objects, each with `apiVersion` and `kind`.

        Without `resource_version` the answer is as new as any write before the call; with one it
        is at least that new ("0": whatever is at hand).
        """
        ...

    def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        resource_version: str | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Follow changes after `resource_version`, until the server ends the stream.

        Without `resource_version` it begins with an ADDED for everything that exists. An object
        that comes to match or no longer matches the selector is ADDED or DELETED. A DELETED
        object carries its last state and the version of the deletion. BOOKMARKs come about once a
        minute, but only while the kind changes somewhere: silence is no sign of a stall.

        Raises:
            Gone: `resource_version` is too old: list again.
            Unavailable: the connection broke: watch again from the last version seen.
        """
        ...

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Create an object; `metadata.generateName` works as usual. Returns what was stored.

        Raises:
            AlreadyExists: the name is taken.
            Invalid: the object breaks its schema.
        """
        ...

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        subresource: Subresource | None = None,
    ) -> Object:
        """Apply a JSON merge patch (RFC 7396). Returns the new object.

        `metadata.resourceVersion` in the patch makes it conditional on that version. It is the
        only fence: a `metadata.uid` in a status patch is ignored. A patch that changes nothing is
        no write: no new version, no event.

        Raises:
            NotFound: there is none of this name.
            Conflict: the object has another version.
            Invalid: the result breaks its schema.
        """
        ...

    async def apply(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        field_manager: str,
        force: bool = True,
    ) -> Object:
        """Server-side apply: create the object or make the fields in `body` so.

        Fields this manager applied before and leaves out now are removed.

        Raises:
            Conflict: another manager applied another value, and `force` is false.
            Invalid: the result breaks its schema.
        """
        ...

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
        propagation: Propagation = "Background",
    ) -> None:
        """Ask for deletion. Finalizers and, for a bound pod, its grace period delay it.

        Args:
            resource: kind.
            namespace: of the object.
            name: of the object.
            uid: delete only this very object.
            grace_seconds: 0 removes a pod without waiting for its node.
            propagation: whether dependents go too or lose their owner.

        Raises:
            NotFound: there is none of this name.
            Conflict: the object of this name has another uid.
        """
        ...

    async def pod_log(self, namespace: str, name: str, *, tail_lines: int | None = None) -> str:
        """The log of a pod's only container, or its last lines.

        Raises:
            NotFound: there is no such pod.
        """
        ...
