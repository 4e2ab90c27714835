"""TLS between agents: a member talks with the lead of its job, and with nobody else."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headway.agent import tls
from headway_api.contract import lead_hostname
from headway_operator.progress.pki import certificate_for, create_identity

NOW = datetime.now(UTC)
IDENTITY = create_identity(["127.0.0.1"], NOW)


async def talk(certificate: str, authority: str, scratch: Path) -> bytes:
    """What a member of ns/job reads from a server with this certificate."""

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0, ssl=tls.of_lead(certificate, scratch))
    context = tls.of_member(authority)
    try:
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(),
            ssl=context,
            server_hostname=tls.hostname("ns", "job", context),
        )
        line = await reader.readline()
        writer.close()
        return line
    finally:
        server.close()


async def test_a_member_talks_with_the_lead_of_its_job(tmp_path: Path) -> None:
    certificate = certificate_for(IDENTITY, lead_hostname("ns", "job"), NOW)
    assert await talk(certificate, IDENTITY.ca, tmp_path) == b"hello\n"


async def test_the_lead_of_another_job_is_refused(tmp_path: Path) -> None:
    certificate = certificate_for(IDENTITY, lead_hostname("ns", "other"), NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await talk(certificate, IDENTITY.ca, tmp_path)


async def test_another_authority_is_refused(tmp_path: Path) -> None:
    other = create_identity(["127.0.0.1"], NOW)
    certificate = certificate_for(other, lead_hostname("ns", "job"), NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        await talk(certificate, IDENTITY.ca, tmp_path)


def test_a_pod_on_its_own_has_no_tls(tmp_path: Path) -> None:
    assert tls.of_lead("", tmp_path) is None
    assert tls.of_member("") is None
    assert tls.hostname("ns", "job", None) is None


def test_the_private_key_stays_in_no_file(tmp_path: Path) -> None:
    tls.of_lead(certificate_for(IDENTITY, "x", NOW), tmp_path)
    assert not list(tmp_path.iterdir())
