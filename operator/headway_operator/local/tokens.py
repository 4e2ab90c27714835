"""Local mode's issuer of pod tokens, so that pods meet the same endpoint as in a cluster."""

import time
import uuid
from collections.abc import Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

ISSUER: Final = "https://headway.local"
_ALGORITHM: Final = "ES256"


class LocalTokenIssuer:
    """Issues tokens with a key that lives in this process alone; a `KeySource` of its own.

    Args:
        service_account: the name that every pod's token bears.
    """

    def __init__(self, service_account: str = "default") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._kid = uuid.uuid4().hex
        self._service_account = service_account

    def issue(
        self, namespace: str, pod_name: str, pod_uid: str, audience: str, seconds: float
    ) -> str:
        """A token with the claims of a projected one.

        Args:
            namespace: of the pod.
            pod_name: of the pod.
            pod_uid: of the pod.
            audience: whom the token is for.
            seconds: how long it is valid.
        """
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{namespace}:{self._service_account}",
            "aud": [audience],
            "iat": now,
            "nbf": now,
            "exp": now + int(seconds),
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {
                "namespace": namespace,
                "pod": {"name": pod_name, "uid": pod_uid},
                "serviceaccount": {"name": self._service_account, "uid": ""},
            },
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM, headers={"kid": self._kid})

    async def keys(self) -> Mapping[str, Any]:
        """The public key as a JSON Web Key Set."""
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**public, "kid": self._kid, "alg": _ALGORITHM, "use": "sig"}]}
