"""Signatures of versions, in the form that `git verify-commit` checks: SSHSIG over an Ed25519 key.

Owns the key of this registry and the list of those that are trusted, `allowed_signers`, which is ssh's own file: who
copies versions from elsewhere adds a line. The form: PROTOCOL.sshsig in OpenSSH; git's namespace is "git".
"""

import base64
import hashlib
import os
import struct
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

_KIND, _MAGIC, _SPACE, _HASH = b"ssh-ed25519", b"SSHSIG", b"git", b"sha512"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"


class Signer:
    """The key under `folder`, made where there is none; only its owner can read it."""

    def __init__(self, folder: Path) -> None:
        self._key_file, self.trusted_file = folder / "signing.key", folder / "allowed_signers"
        if not self._key_file.is_file():
            self._make()
        self._key = Ed25519PrivateKey.from_private_bytes(self._key_file.read_bytes())

    def sign(self, content: bytes) -> bytes:
        """The armoured signature of `content`."""
        public = _string(_KIND) + _string(self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        made = _string(_KIND) + _string(self._key.sign(_signed(content)))
        parts = (public, _SPACE, b"", _HASH, made)
        text = base64.b64encode(_MAGIC + struct.pack(">I", 1) + b"".join(map(_string, parts))).decode()
        lines = [text[at : at + 70] for at in range(0, len(text), 70)]
        return "\n".join((_BEGIN, *lines, _END)).encode()

    def signed(self, content: bytes, signature: bytes | None) -> bool:
        """Whether `signature` is one of `content` by a key that is trusted now."""
        try:
            key, made = _parsed(signature or b"")
            if key not in self._trusted():
                return False
            Ed25519PublicKey.from_public_bytes(key).verify(made, _signed(content))
        except (ValueError, InvalidSignature):
            return False
        return True

    def _trusted(self) -> set[bytes]:
        """The keys of `allowed_signers`: principals, perhaps options, the kind, the key."""
        found = set()
        for line in self.trusted_file.read_text("utf-8").splitlines():
            words = line.split()
            if not line.startswith("#") and _KIND.decode() in words[:-1]:
                try:
                    blob = base64.b64decode(words[words.index(_KIND.decode()) + 1], validate=True)
                    kind, rest = _taken(blob)
                    key, _ = _taken(rest)
                except ValueError:
                    continue
                if kind == _KIND:
                    found.add(key)
        return found

    def _make(self) -> None:
        key = Ed25519PrivateKey.generate()
        public = _string(_KIND) + _string(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        line = f'strata namespaces="git" {_KIND.decode()} {base64.b64encode(public).decode()}\n'
        scratch = self._key_file.with_suffix(f".{os.getpid()}")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
        with self.trusted_file.open("a", encoding="utf-8") as trusted:  # first: a key that nobody trusts does harm
            trusted.write(line)
        try:
            os.link(scratch, self._key_file)  # somebody else's, made meanwhile, stays
        except FileExistsError:
            pass
        finally:
            scratch.unlink()


def _signed(content: bytes) -> bytes:
    """What the key itself signs of `content`."""
    return _MAGIC + b"".join(map(_string, (_SPACE, b"", _HASH, hashlib.sha512(content).digest())))


def _parsed(signature: bytes) -> tuple[bytes, bytes]:
    """The raw public key and signature. Raises ValueError for what is no signature of ours."""
    lines = signature.decode("ascii").strip().splitlines()
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise ValueError("no armour")
    blob = base64.b64decode("".join(lines[1:-1]), validate=True)
    if blob[:10] != _MAGIC + struct.pack(">I", 1):
        raise ValueError("no SSHSIG of version 1")
    public, rest = _taken(blob[10:])
    space, rest = _taken(rest)
    _, rest = _taken(rest)
    hashed, rest = _taken(rest)
    made, rest = _taken(rest)
    kind, key_rest = _taken(public)
    made_kind, made_rest = _taken(made)
    key, more = _taken(key_rest)
    raw, left = _taken(made_rest)
    if (kind, made_kind, space, hashed) != (_KIND, _KIND, _SPACE, _HASH) or rest or more or left:
        raise ValueError("of another kind")
    return key, raw


def _string(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _taken(blob: bytes) -> tuple[bytes, bytes]:
    """The first string of `blob` and what follows. Raises ValueError."""
    if len(blob) < 4 or len(blob) - 4 < (length := struct.unpack(">I", blob[:4])[0]):
        raise ValueError("cut short")
    return blob[4 : 4 + length], blob[4 + length :]
