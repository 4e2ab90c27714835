"""Where the endpoint's identity is kept: a Secret shared by all replicas, or a local file.

Any replica may be the first, and may be killed after any write: each write is complete in
itself, and whoever comes second takes what is there.
"""

import base64
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from headway_operator.cluster.client import (
    SECRET,
    AlreadyExists,
    Conflict,
    KubeClient,
    NotFound,
    Object,
)
from headway_operator.progress.pki import (
    Identity,
    IdentityError,
    create_identity,
    renewal_due,
    renewed,
)

_ATTEMPTS: Final = 10
"""Each lost race means that another replica has written, so a few tries are plenty."""

Now = Callable[[], datetime]


def _utc_now() -> datetime:
    return datetime.now(UTC)


async def load_or_create(
    client: KubeClient, namespace: str, name: str, sans: Sequence[str], *, now: Now = _utc_now
) -> Identity:
    """The identity in a Secret: made if it is missing, its certificate renewed when due.

    A Secret without data (made by a chart, so that the operator's role may name it) is filled.
    Safe among replicas: all end up with the same authority and secret. Call it again from time
    to time, so that the certificate never ends under a running replica.

    Args:
        client: the cluster.
        namespace: of the Secret.
        name: of the Secret.
        sans: DNS names and IP addresses at which pods reach the endpoint; the same on every
            replica, or they would take turns in replacing the certificate.
        now: the time.

    Raises:
        IdentityError: the Secret holds something else, or its authority has expired.
        ApiError: the cluster refused or did not answer.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await _attempt(client, namespace, name, sans, now())
        except (AlreadyExists, Conflict, NotFound):
            continue
    raise IdentityError(
        f"Secret {namespace}/{name} keeps changing; is another operator using the same Secret?"
    )


async def _attempt(
    client: KubeClient, namespace: str, name: str, sans: Sequence[str], moment: datetime
) -> Identity:
    try:
        stored = await client.get(SECRET, namespace, name)
    except NotFound:
        made = create_identity(sans, moment)
        await client.create(SECRET, namespace, _secret(namespace, name, made))
        return made
    data = stored.get("data")
    current = _decode(data, f"Secret {namespace}/{name}") if data else None
    wanted = _wanted(current, sans, moment)
    if wanted != current:
        patch = {
            "metadata": {"resourceVersion": stored["metadata"]["resourceVersion"]},
            "data": _encode(wanted),
        }
        await client.patch(SECRET, namespace, name, patch)
    return wanted


def load_or_create_file(path: Path, sans: Sequence[str], *, now: Now = _utc_now) -> Identity:
    """The identity in a file of local mode, readable by its owner alone (0600).

    Raises:
        IdentityError: the file holds something else, or its authority has expired.
        OSError: the folder can't be written.
    """
    current = _read(path)
    wanted = _wanted(current, sans, now())
    if wanted == current:
        return wanted
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(wanted.to_strings()))
            file.flush()
            os.fsync(file.fileno())
        if current is not None:
            Path(temporary).replace(path)
            return wanted
        try:
            path.hardlink_to(temporary)  # unlike a rename, it never replaces another's work
        except FileExistsError:
            return load_or_create_file(path, sans, now=now)
        return wanted
    finally:
        Path(temporary).unlink(missing_ok=True)


def _wanted(current: Identity | None, sans: Sequence[str], moment: datetime) -> Identity:
    if current is None:
        return create_identity(sans, moment)
    return renewed(current, sans, moment) if renewal_due(current, sans, moment) else current


def _read(path: Path) -> Identity | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        values = orjson.loads(content)
    except orjson.JSONDecodeError:
        values = None
    if not isinstance(values, dict):
        raise IdentityError(f"{path} is not an identity; delete it to have one made")
    return _named(values, str(path))


def _decode(data: Mapping[str, str], where: str) -> Identity:
    try:
        values = {key: base64.b64decode(value).decode() for key, value in data.items()}
    except ValueError:
        values = {}
    return _named(values, where)


def _named(values: Mapping[str, str], where: str) -> Identity:
    try:
        return Identity.from_strings(values)
    except IdentityError as error:
        raise IdentityError(f"{where}: {error}") from None


def _encode(identity: Identity) -> dict[str, str]:
    return {
        key: base64.b64encode(value.encode()).decode()
        for key, value in identity.to_strings().items()
    }


def _secret(namespace: str, name: str, identity: Identity) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Opaque",
        "data": _encode(identity),
    }
