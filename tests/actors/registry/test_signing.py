import base64
import re
import shutil
import stat
import subprocess

import pytest

from actors.registry.aliases import Aliases
from actors.registry.registry import Registry
from actors.registry.signing import Signer
from actors.registry.stages import Stage, Stages
from cluster.errors import ModelInvalid, Unavailable


def test_what_was_signed_is_known_and_nothing_else(tmp_path):
    signer = Signer(tmp_path)
    signature = signer.sign(b"words")
    assert Signer(tmp_path).signed(b"words", signature)
    assert not signer.signed(b"sword", signature)
    body = base64.b64decode(b"".join(signature.splitlines()[1:-1]))
    for at in range(len(body)):  # every byte counts
        changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        armour = b"\n".join([signature.splitlines()[0], base64.b64encode(changed), signature.splitlines()[-1]])
        assert not signer.signed(b"words", armour), at
    for none in (None, b"", b"\xff", signature[:40], signature + b"x", b"\n".join(signature.splitlines()[:-1])):
        assert not signer.signed(b"words", none)


def test_the_key_is_private_and_made_once(tmp_path):
    first = Signer(tmp_path).sign(b"words")
    assert stat.S_IMODE((tmp_path / "signing.key").stat().st_mode) == 0o600
    assert Signer(tmp_path).sign(b"words") == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["allowed_signers", "signing.key"]


def test_who_is_no_longer_trusted_is_not_believed(tmp_path):
    signer = Signer(tmp_path)
    signature = signer.sign(b"words")
    signer.trusted_file.write_text("# nobody\nssh-ed25519\nx ssh-ed25519 !!\n")
    assert not signer.signed(b"words", signature)


def test_without_the_list_of_whom_to_trust_nothing_is_checked_or_signed(registry, model, tmp_path):
    registry.push("chat", model, author="ada")
    trusted = registry.folder / "allowed_signers"
    line = trusted.read_text()
    (model / "README.md").write_text("Next")
    for change, problem in (
        (trusted.unlink, "it is missing"),
        (lambda: trusted.write_bytes(b"\xff"), "no text in UTF"),
    ):
        change()
        for act in (
            lambda: registry.checkout("chat", "v1", tmp_path / "out"),
            lambda: registry.push("chat", model, author="ada"),
            lambda: Registry(registry.folder).push("other", model, author="ada"),
        ):
            with pytest.raises(Unavailable, match=f"allowed_signers is unavailable: .*{problem}"):
                act()
        (fault,) = registry.fsck()
        assert "allowed_signers" in str(fault)
    trusted.write_text("")
    with pytest.raises(Unavailable, match=f"trusts this registry's key; write this line .*{re.escape(line.strip())}"):
        Registry(registry.folder).push("other", model, author="ada")
    trusted.write_text(line)
    assert registry.push("chat", model, author="ada").version == "v2"


@pytest.mark.parametrize(("holds", "problem"), [(None, "it is missing, though"), (b"x" * 31, "it is no key")])
def test_a_key_that_is_lost_is_not_made_anew_silently(registry, model, tmp_path, holds, problem):
    registry.push("chat", model, author="ada")
    key = registry.folder / "signing.key"
    key.unlink() if holds is None else key.write_bytes(holds)
    again = Registry(registry.folder)
    again.checkout("chat", "v1", tmp_path / "out")
    (model / "README.md").write_text("Next")
    with pytest.raises(Unavailable, match=f"signing.key is unavailable: {problem}.*put it back from a copy") as raised:
        again.push("chat", model, author="ada")
    subprocess.run(["sh", "-c", str(raised.value).partition("make another: ")[2]], check=True)
    with pytest.raises(Unavailable, match="write this line") as raised:
        again.push("chat", model, author="ada")
    with (registry.folder / "allowed_signers").open("a") as trusted:
        trusted.write(str(raised.value).partition("that key: ")[2] + "\n")
    assert again.push("chat", model, author="ada").version == "v2"
    assert again.fsck() == []


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="git checks such signatures by ssh-keygen")
def test_git_believes_it_too(registry, model, tmp_path):
    registry.push("chat", model, author="ada")
    trusted = tmp_path / "registry" / "allowed_signers"
    said = subprocess.run(
        ["git", "--git-dir", str(tmp_path / "registry" / "models" / "chat.git"), "-c", "gpg.format=ssh",
         "-c", f"gpg.ssh.allowedSignersFile={trusted}", "verify-commit", "v1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert 'Good "git" signature for strata' in said.stderr


def test_what_nobody_signed_gets_no_name_and_no_child(registry, model, tmp_path):
    first = registry.push("chat", model, author="ada")
    history = registry.history("chat")
    forged = history.commit(history.files(first.commit), (), "ada", 0, "x", Signer(tmp_path).sign)
    history.move("refs/heads/evil", forged, None)
    history._repo.refs[b"refs/tags/v99"] = forged.encode()
    (model / "README.md").write_text("Next")
    for act in (
        lambda: Aliases(registry).move("chat", "prod", "evil", author="ada"),
        lambda: Stages(registry).move("chat", "v99", Stage.CANDIDATE, author="ada"),
        lambda: registry.branch("chat", "other", "evil"),
        lambda: registry.tag("chat", "spring", "evil"),
        lambda: registry.push("chat", model, author="ada", branch="evil"),
    ):
        with pytest.raises(ModelInvalid, match="not signed by a key"):
            act()
    assert registry.push("chat", model, author="ada").version == "v2"


def test_a_number_that_git_gave_away_is_passed_over(registry, model):
    first = registry.push("chat", model, author="ada")
    refs = registry.history("chat")._repo.refs
    refs[b"refs/tags/v2"] = refs[b"refs/tags/v99"] = first.commit.encode()
    (model / "README.md").write_text("Next")
    assert registry.push("chat", model, author="ada").version == "v3"
    assert registry.number("chat", "v99") == "v1"


def test_a_version_that_nobody_signed_is_not_written_out(registry, model, tmp_path):
    registry.push("chat", model, author="ada")
    history = registry.history("chat")
    stranger = Signer(tmp_path)
    forged = history.commit(history.files(history.resolve("v1")), (), "ada", 0, "x", stranger.sign)
    history.move("refs/heads/evil", forged, None)
    assert (registry.show("chat").signed, registry.show("chat", "evil").signed) == (True, False)
    with pytest.raises(ModelInvalid, match="not signed by a key"):
        registry.checkout("chat", "evil", tmp_path / "out")
    assert [forged[:12] in str(problem) for problem in registry.fsck()] == [True]
    with (tmp_path / "registry" / "allowed_signers").open("a") as trusted:
        trusted.write((tmp_path / "allowed_signers").read_text())
    assert Registry(tmp_path / "registry").checkout("chat", "evil", tmp_path / "out") == forged
