"""TLS between the agents of a job, with a certificate that the operator's endpoint gives its lead.

The lead proves by it that it is this job's; the members prove themselves by the handshake inside
(see `wire`). A pod without an operator talks to nobody but itself, and needs none of this.
"""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

from headway_api.contract import lead_hostname


def of_lead(certificate: str, scratch: Path) -> ssl.SSLContext | None:
    """For serving: None without a certificate.

    Args:
        certificate: PEM of private key and certificate, as `JoinResponse` has it.
        scratch: A folder in memory; Python reads certificates from files only.
    """
    if not certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with tempfile.NamedTemporaryFile(mode="w", suffix=".pem", dir=scratch) as file:
        file.write(certificate)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def of_member(authority: str) -> ssl.SSLContext | None:
    """For connecting to the lead: None without an authority.

    Args:
        authority: PEM of the certificate under which the lead's has to be.
    """
    if not authority:
        return None
    context = ssl.create_default_context(cadata=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def hostname(namespace: str, job: str, context: ssl.SSLContext | None) -> str | None:
    """The name to check in the lead's certificate."""
    return lead_hostname(namespace, job) if context else None
