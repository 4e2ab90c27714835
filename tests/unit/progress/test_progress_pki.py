"""The endpoint's identity: what is made, when it is renewed, and who wins a race for it."""

import asyncio
import base64
import ssl
import stat
import tempfile
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from cryptography import x509

from headway_operator.cluster.client import SECRET
from headway_operator.cluster.memory import MemoryCluster
from headway_operator.progress.identity import load_or_create, load_or_create_file
from headway_operator.progress.keys import job_key
from headway_operator.progress.pki import (
    Identity,
    IdentityError,
    create_identity,
    renewal_due,
    renewed,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SANS = ["headway-operator.headway-system.svc", "127.0.0.1"]


def cluster():
    return MemoryCluster(lambda: NOW)


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


def lifetime(pem):
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return certificate.not_valid_after_utc - NOW


def test_lives_are_ten_years_for_the_authority_and_one_for_the_leaf():
    identity = create_identity(SANS, NOW)
    assert lifetime(identity.ca) == timedelta(days=3650)
    assert lifetime(identity.certificate) == timedelta(days=365)


def test_openssl_strict_mode_accepts_the_chain():
    """Python 3.13's clients verify with VERIFY_X509_STRICT by default."""
    identity = create_identity(SANS, datetime.now(UTC))
    for name in SANS:
        assert handshake(identity, trusted=identity, name=name)


def test_a_client_refuses_another_name_and_another_authority():
    identity = create_identity(SANS, datetime.now(UTC))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(identity, trusted=identity, name="elsewhere.svc")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(identity, trusted=create_identity(SANS, datetime.now(UTC)), name=SANS[0])


def handshake(identity, *, trusted, name):
    """A TLS handshake in memory, the client's OpenSSL in strict mode."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(identity.key + identity.certificate)
        file.flush()
        server.load_cert_chain(file.name)
    client = ssl.create_default_context(cadata=trusted.ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(5):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass
    return not ends


@pytest.mark.parametrize(
    ("days", "sans", "due"),
    [
        (334, SANS, False),
        (336, SANS, True),
        (400, SANS, True),
        (0, SANS[:1], False),
        (0, [*SANS, "other.svc"], True),
    ],
)
def test_the_leaf_is_due_in_its_last_thirty_days_or_for_a_new_name(days, sans, due):
    identity = create_identity(SANS, NOW)
    assert renewal_due(identity, sans, NOW + timedelta(days=days)) is due


def test_renewal_keeps_authority_and_secret():
    old = create_identity(SANS, NOW)
    new = renewed(old, SANS, NOW + timedelta(days=340))
    assert (new.ca, new.ca_key, new.secret) == (old.ca, old.ca_key, old.secret)
    assert new.certificate != old.certificate
    assert new.key != old.key


def test_a_leaf_never_outlives_its_authority_and_an_expired_authority_says_what_to_do():
    old = create_identity(SANS, NOW)
    late = renewed(old, SANS, NOW + timedelta(days=3600))
    assert lifetime(late.certificate) == timedelta(days=3650)
    with pytest.raises(IdentityError, match="delete the identity"):
        renewed(old, SANS, NOW + timedelta(days=3651))


def test_private_values_stay_out_of_reprs_and_errors():
    identity = create_identity(SANS, NOW)
    shown = repr(identity)
    assert "PRIVATE" not in shown
    assert repr(identity.secret) not in shown
    broken = {**identity.to_strings(), "tls.crt": identity.key}
    with pytest.raises(IdentityError) as failure:
        Identity.from_strings(broken)
    assert "PRIVATE" not in str(failure.value)
    assert failure.value.__suppress_context__


@pytest.mark.parametrize("key", ["ca.crt", "ca.key", "tls.crt", "tls.key", "secret"])
@pytest.mark.parametrize("value", [None, "junk", ""])
def test_a_damaged_identity_is_refused_with_advice(key, value):
    values = create_identity(SANS, NOW).to_strings()
    values.pop(key) if value is None else values.update({key: value})
    with pytest.raises(IdentityError, match="delete"):
        Identity.from_strings(values)


async def test_the_secret_is_made_once_and_read_by_everybody_after():
    api = cluster()
    first = await load_or_create(api, "sys", "identity", SANS, now=Clock())
    second = await load_or_create(api, "sys", "identity", SANS, now=Clock())
    assert first == second


async def test_racing_replicas_end_up_with_one_authority():
    """All read "not found" before any creates: the losers take the winner's."""

    class Together(MemoryCluster):
        readers, all_read = 0, asyncio.Event()

        async def get(self, resource, namespace, name):
            try:
                return await super().get(resource, namespace, name)
            finally:
                self.readers += 1
                if self.readers == 4:
                    self.all_read.set()
                await self.all_read.wait()

    api = Together(lambda: NOW)
    found = await asyncio.gather(
        *(load_or_create(api, "sys", "identity", SANS, now=Clock()) for _ in range(4))
    )
    assert api.readers >= 4 + 3
    assert len({identity.ca for identity in found}) == 1
    assert found[0] == found[3]


async def test_an_empty_secret_from_a_chart_is_filled():
    api = cluster()
    await api.create(SECRET, "sys", {"metadata": {"name": "identity"}, "type": "Opaque"})
    made = await load_or_create(api, "sys", "identity", SANS, now=Clock())
    assert await load_or_create(api, "sys", "identity", SANS, now=Clock()) == made


async def test_racing_renewals_keep_one_certificate():
    """The patch carries the resourceVersion it was computed from."""
    api, clock = cluster(), Clock()
    old = await load_or_create(api, "sys", "identity", SANS, now=clock)
    clock.now += timedelta(days=350)
    found = await asyncio.gather(
        *(load_or_create(api, "sys", "identity", SANS, now=clock) for _ in range(3))
    )
    assert len({identity.certificate for identity in found}) == 1
    assert found[0].certificate != old.certificate
    assert found[0].ca == old.ca


class Overtaken(MemoryCluster):
    """Another replica comes between our read and our patch, once."""

    winner = None

    def arm(self, clock):
        self.clock, self.armed = clock, True

    async def patch(self, resource, namespace, name, body, *, subresource=None):
        if self.armed:
            self.armed = False
            self.winner = await load_or_create(self, namespace, name, SANS, now=self.clock)
        return await super().patch(resource, namespace, name, body, subresource=subresource)


async def test_a_renewal_that_lost_the_race_takes_the_winners():
    clock, api = Clock(), Overtaken(lambda: NOW)
    await load_or_create(api, "sys", "identity", SANS, now=clock)
    clock.now += timedelta(days=350)
    api.arm(clock)
    loser = await load_or_create(api, "sys", "identity", SANS, now=clock)
    stored = await api.get(SECRET, "sys", "identity")
    assert loser == api.winner
    assert base64.b64decode(stored["data"]["tls.crt"]).decode() == loser.certificate


async def test_racing_to_fill_an_empty_secret_leaves_one_authority():
    clock, api = Clock(), Overtaken(lambda: NOW)
    await api.create(SECRET, "sys", {"metadata": {"name": "identity"}})
    api.arm(clock)
    loser = await load_or_create(api, "sys", "identity", SANS, now=clock)
    assert loser == api.winner == await load_or_create(api, "sys", "identity", SANS, now=clock)


async def test_a_foreign_secret_is_left_alone_and_named():
    api = cluster()
    await api.create(SECRET, "sys", {"metadata": {"name": "identity"}, "data": {"x": "eA=="}})
    with pytest.raises(IdentityError, match="sys/identity"):
        await load_or_create(api, "sys", "identity", SANS, now=Clock())
    assert (await api.get(SECRET, "sys", "identity"))["data"] == {"x": "eA=="}


def test_the_file_is_private_complete_and_stable(tmp_path):
    path = tmp_path / "state" / "identity.json"
    made = load_or_create_file(path, SANS, now=Clock())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_file(path, SANS, now=Clock()) == made
    assert [entry.name for entry in path.parent.iterdir()] == ["identity.json"]


def test_the_file_is_renewed_in_place_and_stays_private(tmp_path):
    path, clock = tmp_path / "identity.json", Clock()
    old = load_or_create_file(path, SANS, now=clock)
    clock.now += timedelta(days=350)
    new = load_or_create_file(path, SANS, now=clock)
    assert (new.ca, new.certificate != old.certificate) == (old.ca, True)
    assert orjson.loads(path.read_bytes())["tls.crt"] == new.certificate
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_process_that_lost_the_race_for_the_file_takes_the_winners(tmp_path, monkeypatch):
    path, winner = tmp_path / "identity.json", []

    def overtaken(sans, now):
        monkeypatch.undo()
        winner.append(load_or_create_file(path, SANS, now=Clock()))
        return create_identity(sans, now)

    monkeypatch.setattr("headway_operator.progress.identity.create_identity", overtaken)
    loser = load_or_create_file(path, SANS, now=Clock())
    assert [loser] == winner
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "identity.json"
    path.write_bytes(content)
    with pytest.raises(IdentityError, match=r"identity\.json.*delete"):
        load_or_create_file(path, SANS, now=Clock())


def test_job_keys_depend_on_secret_and_uid_and_are_stable():
    secret = bytes(range(32))
    key = job_key(secret, "uid-1")
    assert len(bytes.fromhex(key)) == 32
    assert key == job_key(secret, "uid-1")
    assert len({key, job_key(secret, "uid-2"), job_key(bytes(32), "uid-1")}) == 3
