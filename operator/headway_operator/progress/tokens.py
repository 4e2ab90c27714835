"""Projected service-account tokens, verified without asking the API server each time.

Tokens: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import jwt
import orjson

ALGORITHMS: Final = ("RS256", "ES256")
"""What API servers sign with; anything symmetric, and `none`, is refused."""
LEEWAY_SECONDS: Final = 30
REFETCH_SECONDS: Final = 10.0
"""A stranger who makes up key ids can't have us ask the API server more often than this."""
FIRST_KEYS_SECONDS: Final = 1.0
"""The same while there are no keys at all, and every pod is waiting."""
REFRESH_SECONDS: Final = 3600.0
"""After this a key that the API server has withdrawn is forgotten."""
JWKS_PATH: Final = "/openid/v1/jwks"
"""Any service account may read it (ClusterRole system:service-account-issuer-discovery)."""


class TokenError(Exception):
    """A token does not prove what it should; the message says why and never quotes it."""


class KeysUnavailableError(Exception):
    """No keys could be read yet, so no token can be judged."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The pod that a token was issued to."""

    namespace: str
    pod_name: str
    pod_uid: str
    service_account: str


class KeySource(Protocol):
    """Where the issuer of tokens publishes its public keys."""

    async def keys(self) -> Mapping[str, Any]:
        """The current JSON Web Key Set (RFC 7517): `{"keys": [...]}`."""
        ...


class ClusterKeySource:
    """The keys that the API server publishes.

    Args:
        raw_get: reads a path of the API server. It has to accept any content type: the server
            sends `application/jwk-set+json` and refuses (406) to send plain JSON.
    """

    def __init__(self, raw_get: Callable[[str], Awaitable[bytes]]) -> None:
        self._raw_get = raw_get

    async def keys(self) -> Mapping[str, Any]:
        """Read them now."""
        found: Mapping[str, Any] = orjson.loads(await self._raw_get(JWKS_PATH))
        return found


class TokenVerifier:
    """Verifies tokens with keys that it reads seldom and remembers.

    While the source does not answer, the keys read last go on being used: pods can report
    although the API server is down.

    Args:
        source: where the keys are read.
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(
        self, source: KeySource, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._monotonic = monotonic
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._asked_at: float | None = None
        self._reading = asyncio.Lock()

    async def verify(self, token: str, audience: str) -> Caller:
        """Who sent this token, if it was issued to a pod for exactly this audience.

        The issuer's name is not compared: whose keys these are is known from where they were
        read, and an API server may go by several names.

        Raises:
            TokenError: the token is not genuine, not valid now, or for something else.
            KeysUnavailableError: the keys could not be read.
        """
        key = await self._key(_key_id(token))
        return _caller(_claims(token, key, audience))

    async def _key(self, kid: str) -> jwt.PyJWK:
        if self._stale() or kid not in self._keys:
            async with self._reading:
                if self._stale() or kid not in self._keys:
                    await self._refetch()
        if not self._keys:
            raise KeysUnavailableError("the cluster's token keys could not be read yet")
        try:
            return self._keys[kid]
        except KeyError:
            raise TokenError("the token is signed with a key that this cluster lacks") from None

    def _stale(self) -> bool:
        return self._read_at is None or self._monotonic() - self._read_at > REFRESH_SECONDS

    async def _refetch(self) -> None:
        now = self._monotonic()
        pause = REFETCH_SECONDS if self._keys else FIRST_KEYS_SECONDS
        if self._asked_at is not None and now - self._asked_at < pause:
            return
        self._asked_at = now
        try:
            self._keys = _usable(await self._source.keys())
        except Exception as error:
            # Whatever a source fails with, pods go on with the keys there are.
            if not self._keys:
                raise KeysUnavailableError(
                    f"the cluster's token keys could not be read: {error}"
                ) from error
            return
        self._read_at = now


def _usable(jwks: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    found = {}
    for entry in jwks["keys"]:
        try:
            key = jwt.PyJWK(entry)
        except jwt.PyJWTError:  # of a kind that we don't know, and would not accept
            continue
        if key.key_id and key.algorithm_name in ALGORITHMS:
            found[key.key_id] = key
    return found


def _key_id(token: str) -> str:
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise TokenError("the bearer token is not a JSON Web Token") from None
    if header.get("alg") not in ALGORITHMS:
        raise TokenError(f"the token is not signed with {' or '.join(ALGORITHMS)}")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise TokenError("the token names no key")
    return kid


def _claims(token: str, key: jwt.PyJWK, audience: str) -> Mapping[str, Any]:
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=list(ALGORITHMS),
            leeway=LEEWAY_SECONDS,
            # Compared below: PyJWT accepts a token that is good for other audiences, too.
            options={"verify_aud": False, "require": ["exp", "aud"]},
        )
    except jwt.ExpiredSignatureError:
        raise TokenError("the token has expired; read it anew from its file") from None
    except jwt.ImmatureSignatureError:
        raise TokenError("the token is not valid yet; are the nodes' clocks right?") from None
    except jwt.InvalidSignatureError:
        raise TokenError("the token's signature is wrong") from None
    except jwt.PyJWTError as error:
        raise TokenError(f"the token is not acceptable ({type(error).__name__})") from None
    if claims["aud"] not in (audience, [audience]):
        raise TokenError(f"the token is not for the audience {audience} alone")
    return claims


def _caller(claims: Mapping[str, Any]) -> Caller:
    try:
        bound = claims["kubernetes.io"]
        return Caller(
            namespace=bound["namespace"],
            pod_name=bound["pod"]["name"],
            pod_uid=bound["pod"]["uid"],
            service_account=bound["serviceaccount"]["name"],
        )
    except (KeyError, TypeError):
        raise TokenError("the token is not bound to a pod; use a projected volume") from None
