"""Which tokens count, and how often the cluster is asked for its keys."""

import base64
import hashlib
import hmac
import time

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from headway_operator.local.tokens import LocalTokenIssuer
from headway_operator.progress.tokens import (
    JWKS_PATH,
    Caller,
    ClusterKeySource,
    KeysUnavailableError,
    TokenError,
    TokenVerifier,
)

AUDIENCE = "headway.dev/v1alpha1/namespaces/ns/trainingjobs/job"
BOUND = {
    "namespace": "ns",
    "pod": {"name": "job-0", "uid": "u0"},
    "serviceaccount": {"name": "default", "uid": "s"},
}


class Source:
    """Counts how often it is asked; fails on demand."""

    def __init__(self, *issuers):
        self.issuers, self.asked, self.broken = list(issuers), 0, False

    async def keys(self):
        self.asked += 1
        if self.broken:
            raise ConnectionError("API server down")
        return {"keys": [key for i in self.issuers for key in (await i.keys())["keys"]]}


class Monotonic:
    now = 1000.0

    def __call__(self):
        return self.now


def token(issuer, audience=AUDIENCE, seconds=600):
    return issuer.issue("ns", "job-0", "u0", audience, seconds)


def signed(issuer, **changes):
    """A token with changed claims, properly signed by the issuer's own key."""
    claims = jwt.decode(token(issuer), options={"verify_signature": False})
    claims = {k: v for k, v in {**claims, **changes}.items() if v is not None}
    kid = jwt.get_unverified_header(token(issuer))["kid"]
    return jwt.encode(claims, issuer._key, algorithm="ES256", headers={"kid": kid})


@pytest.fixture
def issuer():
    return LocalTokenIssuer()


async def test_a_good_token_names_its_pod(issuer):
    caller = await TokenVerifier(issuer).verify(token(issuer), AUDIENCE)
    assert caller == Caller("ns", "job-0", "u0", "default")


async def test_rs256_as_api_servers_sign_is_accepted():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "k", "alg": "RS256"}
    paths = []

    async def raw_get(path):
        paths.append(path)
        return orjson.dumps({"keys": [jwk]})

    claims = {"aud": [AUDIENCE], "exp": int(time.time()) + 60, "kubernetes.io": BOUND}
    text = jwt.encode(claims, key, algorithm="RS256", headers={"kid": "k"})
    caller = await TokenVerifier(ClusterKeySource(raw_get)).verify(text, AUDIENCE)
    assert caller.pod_uid == "u0"
    assert paths == [JWKS_PATH]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aud": ["https://kubernetes.default.svc"]}, "audience"),
        ({"aud": AUDIENCE + "s"}, "audience"),
        ({"aud": [AUDIENCE, "another"]}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": None}, "MissingRequiredClaim"),
        ({"exp": None}, "MissingRequiredClaim"),
        ({"exp": int(time.time()) - 45}, "expired"),
        ({"nbf": int(time.time()) + 30_000}, "not valid yet"),
        ({"kubernetes.io": None}, "not bound to a pod"),
        ({"kubernetes.io": {**BOUND, "pod": None}}, "not bound to a pod"),
        ({"kubernetes.io": {"namespace": "ns", "serviceaccount": {"name": "x"}}}, "not bound"),
        ({"kubernetes.io": "ns"}, "not bound to a pod"),
    ],
)
async def test_claims_that_do_not_hold_are_refused_with_the_reason(issuer, changes, message):
    with pytest.raises(TokenError, match=message):
        await TokenVerifier(issuer).verify(signed(issuer, **changes), AUDIENCE)


@pytest.mark.parametrize(("claim", "seconds_from_now"), [("exp", -10), ("nbf", 10)])
async def test_clocks_may_differ_a_little(issuer, claim, seconds_from_now):
    late = signed(issuer, **{claim: int(time.time()) + seconds_from_now})
    assert await TokenVerifier(issuer).verify(late, AUDIENCE)


async def test_another_issuers_signature_under_a_known_key_id_is_refused(issuer):
    other = LocalTokenIssuer()
    other._kid = issuer._kid
    with pytest.raises(TokenError, match="signature"):
        await TokenVerifier(issuer).verify(token(other), AUDIENCE)


async def test_a_changed_payload_is_refused(issuer):
    head, _, signature = token(issuer).split(".")
    _, payload, _ = signed(issuer, sub="system:masters").split(".")
    with pytest.raises(TokenError, match="signature"):
        await TokenVerifier(issuer).verify(f"{head}.{payload}.{signature}", AUDIENCE)


async def test_alg_none_is_refused(issuer):
    claims = jwt.decode(token(issuer), options={"verify_signature": False})
    text = jwt.encode(claims, "", algorithm="none", headers={"kid": issuer._kid})
    with pytest.raises(TokenError, match="not signed with"):
        await TokenVerifier(issuer).verify(text, AUDIENCE)


async def test_the_public_key_used_as_a_shared_secret_is_refused(issuer):
    """The classic confusion: HS256 with the text of the published key."""
    public = issuer._key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = base64.urlsafe_b64encode(
        orjson.dumps({"alg": "HS256", "kid": issuer._kid, "typ": "JWT"})
    ).rstrip(b"=")
    message = header + b"." + token(issuer).split(".")[1].encode()
    mac = hmac.new(public, message, hashlib.sha256).digest()
    text = (message + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()
    with pytest.raises(TokenError, match="not signed with"):
        await TokenVerifier(issuer).verify(text, AUDIENCE)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é.é.é", "..", "Bearer", "e30.e30.e30"])
async def test_junk_is_refused(issuer, text):
    with pytest.raises(TokenError):
        await TokenVerifier(issuer).verify(text, AUDIENCE)


async def test_keys_of_unknown_kinds_are_passed_over(issuer):
    class Mixed:
        async def keys(self):
            oct_key = {"kty": "oct", "k": "c2VjcmV0", "kid": "o", "alg": "HS256"}
            return {"keys": [{"kty": "XYZ", "kid": "x"}, oct_key, *(await issuer.keys())["keys"]]}

    assert await TokenVerifier(Mixed()).verify(token(issuer), AUDIENCE)


async def test_errors_never_quote_the_token(issuer):
    text = signed(issuer, aud=["other"])
    with pytest.raises(TokenError) as failure:
        await TokenVerifier(issuer).verify(text, AUDIENCE)
    assert text.split(".")[2] not in str(failure.value)


async def test_keys_are_read_once_for_many_tokens(issuer):
    source = Source(issuer)
    verifier = TokenVerifier(source)
    for _ in range(5):
        await verifier.verify(token(issuer), AUDIENCE)
    assert source.asked == 1


async def test_a_rotated_key_is_found_at_once_but_made_up_ids_cost_one_read_in_ten_seconds(issuer):
    source, clock, rotated = Source(issuer), Monotonic(), LocalTokenIssuer()
    verifier = TokenVerifier(source, monotonic=clock)
    await verifier.verify(token(issuer), AUDIENCE)
    clock.now += 11
    source.issuers.append(rotated)
    assert await verifier.verify(token(rotated), AUDIENCE)
    assert source.asked == 2
    for _ in range(20):
        with pytest.raises(TokenError, match="lacks"):
            await verifier.verify(token(LocalTokenIssuer()), AUDIENCE)
    assert source.asked == 2
    clock.now += 11
    with pytest.raises(TokenError, match="lacks"):
        await verifier.verify(token(LocalTokenIssuer()), AUDIENCE)
    assert source.asked == 3


async def test_a_withdrawn_key_is_forgotten_within_the_hour(issuer):
    source, clock = Source(issuer), Monotonic()
    verifier = TokenVerifier(source, monotonic=clock)
    await verifier.verify(token(issuer), AUDIENCE)
    source.issuers = [LocalTokenIssuer()]
    clock.now += 3601
    with pytest.raises(TokenError, match="lacks"):
        await verifier.verify(token(issuer), AUDIENCE)


async def test_known_keys_go_on_while_the_api_server_is_down(issuer):
    source, clock = Source(issuer), Monotonic()
    verifier = TokenVerifier(source, monotonic=clock)
    await verifier.verify(token(issuer), AUDIENCE)
    source.broken = True
    clock.now += 7200
    for _ in range(5):
        assert await verifier.verify(token(issuer), AUDIENCE)
    assert source.asked == 2


async def test_without_any_keys_nobody_is_judged_and_it_is_tried_again_soon(issuer):
    source, clock = Source(issuer), Monotonic()
    source.broken = True
    verifier = TokenVerifier(source, monotonic=clock)
    for _ in range(5):
        with pytest.raises(KeysUnavailableError):
            await verifier.verify(token(issuer), AUDIENCE)
    assert source.asked == 1
    source.broken = False
    clock.now += 1.1
    assert await verifier.verify(token(issuer), AUDIENCE)


async def test_local_tokens_have_the_claims_of_projected_ones(issuer):
    claims = jwt.decode(token(issuer, seconds=90), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 90
    assert claims["sub"] == "system:serviceaccount:ns:default"
    assert claims["kubernetes.io"]["pod"] == {"name": "job-0", "uid": "u0"}
    public = ECAlgorithm.from_jwk((await issuer.keys())["keys"][0])
    assert not hasattr(public, "private_numbers")
