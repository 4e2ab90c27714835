"""The endpoint's own authority, its serving certificate and the operator's secret.

Certificates follow RFC 5280 closely enough for OpenSSL's strict mode, which Python 3.13's
clients use by default.
"""

import base64
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE: Final = timedelta(days=3650)
"""Running pods hold the authority in their environment: it has to outlive every job."""
LEAF_LIFE: Final = timedelta(days=365)
RENEW_BEFORE: Final = timedelta(days=30)
CLOCK_SKEW: Final = timedelta(minutes=5)
"""A pod's clock may be behind the one that signed."""
SECRET_BYTES: Final = 32

_CA, _CA_KEY, _LEAF, _LEAF_KEY, _SECRET = "ca.crt", "ca.key", "tls.crt", "tls.key", "secret"


class IdentityError(ValueError):
    """A stored identity can't be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the endpoint is, the same on every replica.

    Attributes:
        ca: PEM of the authority; what pods verify the endpoint with.
        ca_key: PEM of its private key.
        certificate: PEM of the serving certificate.
        key: PEM of its private key.
        secret: the operator's 32 bytes, from which the jobs' keys are derived.
    """

    ca: str
    ca_key: str = field(repr=False)
    certificate: str
    key: str = field(repr=False)
    secret: bytes = field(repr=False)

    def to_strings(self) -> dict[str, str]:
        """The values of a Secret's `stringData` or of a JSON file, none of them binary."""
        return {
            _CA: self.ca,
            _CA_KEY: self.ca_key,
            _LEAF: self.certificate,
            _LEAF_KEY: self.key,
            _SECRET: base64.b64encode(self.secret).decode(),
        }

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> "Identity":
        """Read what `to_strings` wrote.

        Raises:
            IdentityError: a value is missing or is not what its name says.
        """
        try:
            identity = cls(
                ca=values[_CA],
                ca_key=values[_CA_KEY],
                certificate=values[_LEAF],
                key=values[_LEAF_KEY],
                secret=base64.b64decode(values[_SECRET], validate=True),
            )
            _authority(identity)
            x509.load_pem_x509_certificate(identity.certificate.encode())
            _load_key(identity.key)
        except (KeyError, ValueError, TypeError) as error:
            # The cause is named by its type alone: its text could hold key material.
            raise IdentityError(
                f"the endpoint's identity is incomplete or damaged ({type(error).__name__}); "
                "delete it and restart the operator to have it made anew (running jobs then "
                "need new pods to trust it)"
            ) from None
        if len(identity.secret) != SECRET_BYTES:
            raise IdentityError(
                f"the operator's secret has {len(identity.secret)} bytes instead of "
                f"{SECRET_BYTES}; delete the identity and restart the operator"
            )
        return identity


def create_identity(sans: Iterable[str], now: datetime) -> Identity:
    """Make a new authority, a certificate under it and a secret.

    Args:
        sans: DNS names and IP addresses at which the endpoint is reached.
        now: the time, with a time zone.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("headway-operator authority")
    ca = (
        _builder(name, name, key.public_key(), now, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_key_identifier(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    leaf, leaf_key = _issue(ca, key, sans, now)
    return Identity(
        ca=_pem(ca),
        ca_key=_key_pem(key),
        certificate=leaf,
        key=leaf_key,
        secret=secrets.token_bytes(SECRET_BYTES),
    )


def certificate_for(identity: Identity, hostname: str, now: datetime) -> str:
    """PEM of a new private key and a certificate for it, under the authority.

    Args:
        identity: whose authority signs.
        hostname: the one name it is valid for.
        now: the time, with a time zone.
    """
    certificate, key = _issue(*_authority(identity), [hostname], now)
    return key + certificate


def renewal_due(identity: Identity, sans: Iterable[str], now: datetime) -> bool:
    """Whether the serving certificate ends in less than 30 days or lacks one of the names."""
    leaf = x509.load_pem_x509_certificate(identity.certificate.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    missing = set(_general_names(sans)) - set(names)
    return bool(missing) or leaf.not_valid_after_utc - now < RENEW_BEFORE


def renewed(identity: Identity, sans: Iterable[str], now: datetime) -> Identity:
    """The same authority and secret with a new serving certificate and key.

    Raises:
        IdentityError: the authority itself has expired.
    """
    ca, key = _authority(identity)
    if ca.not_valid_after_utc <= now:
        raise IdentityError(
            f"the endpoint's authority expired at {ca.not_valid_after_utc:%Y-%m-%d}; delete the "
            "identity, restart the operator, and let running jobs get new pods"
        )
    leaf, leaf_key = _issue(ca, key, sans, now)
    return Identity(identity.ca, identity.ca_key, leaf, leaf_key, identity.secret)


def _issue(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, sans: Iterable[str], now: datetime
) -> tuple[str, str]:
    names = list(_general_names(sans))
    if not names:
        raise ValueError("the endpoint needs at least one DNS name or IP address to serve as")
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + LEAF_LIFE, ca.not_valid_after_utc)
    leaf = (
        _builder(_name("headway-operator"), ca.subject, key.public_key(), now, end)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_key_identifier(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    return _pem(leaf), _key_pem(key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=begin - CLOCK_SKEW,
        not_valid_after=end,
    )


def _authority(identity: Identity) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    return x509.load_pem_x509_certificate(identity.ca.encode()), _load_key(identity.ca_key)


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an EC key")
    return key


def _general_names(sans: Iterable[str]) -> Iterable[x509.GeneralName]:
    for san in sans:
        try:
            yield x509.IPAddress(ip_address(san))
        except ValueError:
            yield x509.DNSName(san)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_identifier(key: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
