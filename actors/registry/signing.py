"""Signatures of versions, in the form that `git verify-commit` checks: SSHSIG over an Ed25519 key.

Owns the key of this registry and the list of those that are trusted, `allowed_signers`, which is ssh's own file: who
copies versions from elsewhere adds a line. The form: PROTOCOL.sshsig in OpenSSH; git's namespace is "git".
"""

import base64
import hashlib
import os
import struct
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cluster.errors import Unavailable

_KIND, _MAGIC, _SPACE, _HASH = b"ssh-ed25519", b"SSHSIG", b"git", b"sha512"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"


class Signer:
    """The key under `folder`, made where it is `new` and there is none; only its owner can read it."""

    def __init__(self, folder: Path, *, new: bool = True) -> None:
        self._key_file, self.trusted_file = folder / "signing.key", folder / "allowed_signers"
        if new and not self._key_file.is_file():
            self._make()

    def sign(self, content: bytes) -> bytes:
        """The armoured signature of `content`. Raises Unavailable without a key of ours that is trusted."""
        own = self._own()
        if _raw(own) not in self._trusted():
            raise Unavailable("signing", f"no line of {self.trusted_file} trusts this registry's key; {_help(own)}")
        made = _string(_KIND) + _string(own.sign(_signed(content)))
        parts = (_public(own), _SPACE, b"", _HASH, made)
        text = base64.b64encode(_MAGIC + struct.pack(">I", 1) + b"".join(map(_string, parts))).decode()
        lines = [text[at : at + 70] for at in range(0, len(text), 70)]
        return "\n".join((_BEGIN, *lines, _END)).encode()

    def signed(self, content: bytes, signature: bytes | None) -> bool:
        """Whether `signature` is one of `content` by a key that is trusted now. Raises Unavailable without the list."""
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
        for line in self._lines():
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

    def _lines(self) -> list[str]:
        try:
            return self.trusted_file.read_text("utf-8").splitlines()
        except FileNotFoundError:
            problem = "it is missing, so that no version can be checked; put it back from a copy"
            with suppress(Unavailable, OSError):
                problem = f"{problem}, or {_help(self._own())}"
        except UnicodeDecodeError:
            problem = "it is no text in UTF-8; put it back from a copy"
        raise Unavailable(str(self.trusted_file), problem)

    def _own(self) -> Ed25519PrivateKey:
        """Raises Unavailable."""
        try:
            return Ed25519PrivateKey.from_private_bytes(self._key_file.read_bytes())
        except FileNotFoundError:
            problem = "it is missing, though there are versions that it signed"
        except ValueError:
            problem = "it is no key: 32 bytes are"
        made = f"(umask 077; head -c 32 /dev/urandom > {self._key_file})"
        raise Unavailable(str(self._key_file), f"{problem}; put it back from a copy, or make another: {made}")

    def _make(self) -> None:
        key = Ed25519PrivateKey.generate()
        scratch = self._key_file.with_suffix(f".{os.getpid()}")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
        with self.trusted_file.open("a", encoding="utf-8") as trusted:  # first: a key that nobody trusts does harm
            trusted.write(f"{_line(key)}\n")
        try:
            os.link(scratch, self._key_file)  # somebody else's, made meanwhile, stays
        except FileExistsError:
            pass
        finally:
            scratch.unlink()


def _raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _public(key: Ed25519PrivateKey) -> bytes:
    return _string(_KIND) + _string(_raw(key))


def _line(key: Ed25519PrivateKey) -> str:
    """Of `allowed_signers`."""
    return f'strata namespaces="git" {_KIND.decode()} {base64.b64encode(_public(key)).decode()}'


def _help(key: Ed25519PrivateKey) -> str:
    return f"write this line into it if you trust that key: {_line(key)}"


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
