"""A certificate authority made on the spot, with the certificates of a broker and of a client."""

from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key


def make(folder: Path) -> None:
    """Writes ca.pem, server.pem (key and chain in one file, as the broker reads it), client.pem and client.key."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server = authority.issue_cert("127.0.0.1", "localhost")
    (folder / "server.pem").write_bytes(key(server) + chain(server))
    client = authority.issue_cert("penstock@localhost", common_name="penstock")
    (folder / "client.pem").write_bytes(chain(client))
    (folder / "client.key").write_bytes(key(client))
    # For the test that a server of unknown origin is refused.
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")


def chain(leaf: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in leaf.cert_chain_pems)


def key(leaf: trustme.LeafCert) -> bytes:
    """As PKCS #8, the only form that Java's PEM reader takes."""
    loaded = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
