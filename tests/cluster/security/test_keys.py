"""API keys: what is stored, who is believed, and what survives."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from cluster.errors import NotFound, SettingsInvalid, Unauthenticated
from cluster.security import keys
from cluster.security.keys import SHAPE, KeyRing, Principal


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "own" / "keys.json")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "own" / "keys.json"


def public(key: str) -> str:
    match = SHAPE.fullmatch(key)
    assert match
    return match.group(1)


def test_a_key_is_known_by_whom_it_was_issued_to(ring: KeyRing):
    key = ring.issue("laptop", "acme", "user", created=7)
    assert ring.verify(key) == Principal(public(key), "laptop", "acme", "user")
    assert [(record.name, record.created) for record in ring.records()] == [("laptop", 7)]


def test_keys_differ_and_hold_256_bits(ring: KeyRing):
    issued = {ring.issue(f"k{place}", "acme", "user", place) for place in range(20)}
    secrets = {key.rsplit("-", 1)[0] and key[len("sk-strata-") + 13 :] for key in issued}
    assert len(issued) == len(secrets) == 20
    assert all(len(secret) * 6 >= 256 for secret in secrets)


def test_the_file_holds_no_key_and_is_its_owners_alone(ring: KeyRing, file: Path):
    key = ring.issue("laptop", "acme", "user", created=7)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    text = file.read_text()
    assert key not in text
    assert key[-43:] not in text


def test_whoever_else_reads_the_file_sees_changes_at_once(ring: KeyRing, file: Path):
    other = KeyRing(file)
    key = ring.issue("laptop", "acme", "user", created=7)
    assert other.verify(key).name == "laptop"
    second = other.issue("desk", "acme", "user", created=8)
    assert ring.verify(second).name == "desk"
    ring.revoke(public(key))
    with pytest.raises(Unauthenticated):
        other.verify(key)
    file.unlink()
    with pytest.raises(Unauthenticated):
        ring.verify(second)


WRONG = ["", "sk-strata-", "x" * 8192, "sk-strata-../../etc-" + "A" * 43, "' OR 1=1", "\x00", "\ud800", "é" * 100]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda text: ascii(text)[:20])
def test_what_is_no_key(ring: KeyRing, wrong: str):
    ring.issue("laptop", "acme", "user", created=7)
    with pytest.raises(Unauthenticated):
        ring.verify(wrong)


def test_changed_in_any_place_it_is_another_key(ring: KeyRing):
    key = ring.issue("laptop", "acme", "user", created=7)
    for place in range(len(key)):
        other = "B" if key[place] != "B" else "C"
        with pytest.raises(Unauthenticated):
            ring.verify(key[:place] + other + key[place + 1 :])
    for changed in (key + "A", key[:-1], " " + key, key + "\n"):
        with pytest.raises(Unauthenticated):
            ring.verify(changed)


def test_every_wrong_key_takes_the_same_path(ring: KeyRing, monkeypatch: pytest.MonkeyPatch):
    """One comparison in constant time, whether the id is known, unknown or no id at all."""
    key = ring.issue("laptop", "acme", "user", created=7)
    compared: list[tuple[int, int]] = []
    real = keys.hmac.compare_digest

    def compare(one: str, two: str) -> bool:
        compared.append((len(one), len(two)))
        return real(one, two)

    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    told = set()
    for wrong in (key[:-1] + "!", key[:-2] + "AA", f"sk-strata-{'0' * 12}-{key[-43:]}", "", "' OR 1=1"):
        with pytest.raises(Unauthenticated) as error:
            ring.verify(wrong)
        told.add(str(error.value))
    assert compared == [(64, 64)] * 5
    assert len(told) == 1


def test_the_decoy_lets_nobody_in(ring: KeyRing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keys, "digest", lambda key: keys.DECOY.sha256)
    with pytest.raises(Unauthenticated):
        ring.verify("anything")


def test_revoking_what_is_not_there(ring: KeyRing):
    with pytest.raises(NotFound):
        ring.revoke("0" * 12)


def test_an_id_that_is_taken_is_drawn_again():
    drawn = iter(["a", "a", "b"])
    assert keys.new_id({"a": keys.DECOY}, lambda: next(drawn)) == "b"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"keys":[{"id":"x"}]}', '{"keys":[1]}', '{"keys":1}'])
def test_a_broken_file_is_said_to_be_broken(ring: KeyRing, file: Path, text: str):
    key = ring.issue("laptop", "acme", "user", created=7)
    file.write_text(text)
    with pytest.raises(SettingsInvalid, match="key file"):
        ring.verify(key)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(ring: KeyRing, file: Path, mode: int):
    key = ring.issue("laptop", "acme", "user", created=7)
    file.chmod(mode)
    os.utime(file, ns=(1, 1))
    with pytest.raises(SettingsInvalid, match="chmod 600"):
        ring.verify(key)


def test_a_write_that_fails_leaves_the_old_file(ring: KeyRing, file: Path, monkeypatch: pytest.MonkeyPatch):
    key = ring.issue("laptop", "acme", "user", created=7)

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(keys.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        ring.issue("desk", "acme", "user", created=8)
    assert [entry["name"] for entry in json.loads(file.read_text())["keys"]] == ["laptop"]
    assert {path.name for path in file.parent.iterdir()} == {"keys.json", "keys.json.lock"}
    assert ring.verify(key)


def test_writers_at_the_same_time_lose_nothing(file: Path):
    def issue(place: int) -> None:
        KeyRing(file).issue(f"k{place}", "acme", "user", place)

    threads = [threading.Thread(target=issue, args=(place,)) for place in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [record.name for record in KeyRing(file).records()] == [f"k{place}" for place in range(12)]
