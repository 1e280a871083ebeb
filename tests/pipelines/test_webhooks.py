"""Events to a receiver that is a real HTTP server, which checks every signature; the courier killed among them."""

import base64
import hashlib
import hmac
import json
import logging
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from actors.registry.outbox import GIVEN_UP, Outbox
from actors.registry.registry import Registry
from actors.registry.service import Place
from cluster.errors import SettingsInvalid
from pipelines import webhooks
from pipelines.settings import Settings
from pipelines.webhooks import GIVE_UP_SECONDS, Courier, Hook, hooks_of, pause, signature
from tests.actors.registry.test_candidates import World

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


class Ear:
    """A receiver: what it heard, and what it answers."""

    def __init__(self) -> None:
        self.heard: list[dict[str, object]] = []
        self.status, self.goes_to = 204, ""
        ear = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                told = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
                made = hmac.new(bytes(range(32)), told, hashlib.sha256).digest()
                good = self.headers["webhook-signature"] == f"v1,{base64.b64encode(made).decode()}"
                late = abs(time.time() - int(self.headers["webhook-timestamp"])) > 60
                ear.heard.append(
                    {"id": self.headers["webhook-id"], "good": good and not late, "path": self.path, **json.loads(body)}
                )
                self.send_response(ear.status)
                if ear.goes_to:
                    self.send_header("location", ear.goes_to)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def ear():
    made = Ear()
    yield made
    made.close()


class Stand:
    """A registry, a courier, and time for its pauses."""

    def __init__(self, folder: Path, ear: Ear) -> None:
        self.skipped = 0.0
        self.place = Place(str(folder / "registry"))
        self.world = World(Registry(folder / "registry"), folder)
        self.world.push()
        (folder / "secret").write_text(SECRET + "\n")
        self.hook = Hook(ear.url, (), str(folder / "secret"))
        self.courier = Courier(self.place, (self.hook,), self.wall)

    def wall(self) -> float:
        return time.time() + self.skipped

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.world.registry, self.wall)


@pytest.fixture
async def stand(tmp_path, ear) -> Stand:
    made = Stand(tmp_path, ear)
    assert await made.courier.turn() == 0
    return made


async def test_what_is_merged_is_told_and_signed(stand, ear):
    _, number = stand.world.merge()
    assert await stand.courier.turn() == 5
    assert all(each["good"] for each in ear.heard)
    assert [each["type"] for each in ear.heard] == [
        "version.created", "version.created", "branch.created", "merge_request.opened", "merge_request.merged"
    ]  # fmt: skip
    assert ear.heard[-1]["data"]["number"] == number
    assert ear.heard[-1]["path"] == "/hook"
    assert await stand.courier.turn() == 0


async def test_it_is_told_until_it_is_heard_with_the_same_id(stand, ear, caplog):
    ear.status = 503
    stand.world.push()
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            assert await stand.courier.turn() == 0
        assert len(ear.heard) == 1, "not at once"
        stand.skipped += 30
        await stand.courier.turn()
        ear.status = 200
        stand.skipped = 60.0
        assert await stand.courier.turn() == 1
    assert len({each["id"] for each in ear.heard}) == 1
    assert stand.outbox.all()[0].tries == 3
    assert SECRET not in caplog.text
    assert ear.url not in caplog.text


async def test_another_address_is_not_followed_and_says_why(stand, ear):
    ear.status, ear.goes_to = 307, "http://127.0.0.1:1/elsewhere"
    stand.world.push()
    await stand.courier.turn()
    assert "not followed" in stand.outbox.all()[0].said
    assert len(ear.heard) == 1


async def test_who_never_hears_is_given_up_and_told_again_when_somebody_says_so(stand, ear):
    stand.courier.hooks = (hook := Hook(ear.url.replace("/hook", "/other"), (), stand.hook.secret_file),)
    await stand.courier.turn()
    ear.status = 500
    stand.world.push()
    await stand.courier.turn()
    stand.skipped += GIVE_UP_SECONDS + 60
    await stand.courier.turn()
    assert [letter.state for letter in stand.outbox.all()] == [GIVEN_UP]
    assert stand.outbox.again() == 1
    ear.status = 200
    stand.skipped = 0.0
    assert [letter.hook for letter in stand.outbox.all()] == [hook.id]


async def test_nobody_there_and_no_secret_are_said(stand, tmp_path):
    stand.courier.hooks = (Hook("http://127.0.0.1:9/", (), stand.hook.secret_file), Hook(stand.hook.url, (), "/none"))
    await stand.courier.turn()
    stand.world.push()
    await stand.courier.turn()
    said = {letter.said for letter in stand.outbox.all()}
    assert any(each.startswith("no answer: ConnectError") for each in said)
    assert any("/none is not accepted; it cannot be read" in each for each in said)


KILLED = """
import asyncio, sys
from actors.registry.service import Place
from pipelines import webhooks
from pipelines.webhooks import Courier, Hook
webhooks.LOOK_SECONDS = 0.01
async def main():
    courier = Courier(Place(sys.argv[1]), (Hook(sys.argv[2], (), sys.argv[3]),))
    courier.start()
    print("begun", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def killed_after(stand: Stand, ear: Ear, events: int) -> None:
    """A courier of its own, killed when so many events were heard."""
    words = [sys.executable, "-c", KILLED, stand.place.folder, stand.hook.url, stand.hook.secret_file]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        while len({each["id"] for each in ear.heard}) < events:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()


async def test_whoever_kills_it_loses_nothing(stand, ear):
    expected = 0
    for turn in range(3):
        for _ in range(3):
            stand.world.push()
        expected += 3
        killed_after(stand, ear, expected - turn % 2)
    await stand.courier.turn()
    assert len({each["id"] for each in ear.heard}) == expected
    assert all(each["good"] for each in ear.heard)


def test_the_signature_is_the_specification_s():
    body = '{"test": 2432232314}'  # from its reference implementations' tests
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_pauses_grow_and_end():
    waits = [pause(tries, 0.5) for tries in range(12)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (5.0, 3600.0)
    assert pause(0, 0.0) < 5.0 < pause(0, 1.0)


def test_a_secret_of_the_environment_is_kept_for_the_next_deploy(tmp_path):
    hook = {"url": "https://a/b", "secret_env": "HOOK_SECRET"}
    made = Settings.of({"cluster": {"state_dir": str(tmp_path)}, "registry": {"webhooks": [hook]}})
    with pytest.raises(SettingsInvalid, match=r"registry\.webhooks\.0\.secret_env: HOOK_SECRET .* not set"):
        hooks_of(made, {})
    with pytest.raises(SettingsInvalid, match="24 bytes") as wrong:
        hooks_of(made, {"HOOK_SECRET": "short"})
    assert "short" not in str(wrong.value)
    (found,) = hooks_of(made, {"HOOK_SECRET": SECRET})
    assert Path(found.secret_file).stat().st_mode & 0o777 == 0o600
    assert webhooks.read_secret(Path(found.secret_file)) == bytes(range(32))
    assert hooks_of(made, {}) == (found,)


@pytest.mark.parametrize("text", ["whsec_!!", "whsec_c2hvcnQ=", "too short"])
def test_a_bad_secret_is_not_repeated(text):
    with pytest.raises(SettingsInvalid) as wrong:
        webhooks.parse_secret(text, "registry.webhooks.0.secret_env", "HOOK_SECRET")
    assert text not in str(wrong.value)
