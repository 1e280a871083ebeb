"""Tell whoever wants to hear what happens in the registry: signed, again until it is heard, nothing lost.

Signs as the Standard Webhooks specification says (github.com/standard-webhooks, v1): whoever hears an event checks
`webhook-signature` over `webhook-id`, `webhook-timestamp` and the body, and takes the same id but once. Knows HTTP and
the outbox. A secret is read from its file for every event and is in no log, no error and no answer.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from actors.registry.outbox import Letter, Outbox
from actors.registry.service import Place, opened
from actors.registry.settings import WebhookSettings
from cluster.errors import SettingsInvalid
from cluster.telemetry import logs
from pipelines.settings import Settings

log = logging.getLogger("strata.webhooks")
logging.getLogger("httpx").setLevel(logging.WARNING)  # it would write every address, which may hold a token

LOOK_SECONDS = 1.0
SECONDS = 10.0  # that one may take to hear
FIRST_SECONDS, MOST_SECONDS = 5.0, 3_600.0  # until it is told again; three times as long after each try
GIVE_UP_SECONDS = 3 * 86_400.0
PREFIX = "whsec_"  # of a secret in base64
LEAST_BYTES = 24  # as the specification has it
AGENT = "strata-webhooks"


@dataclass(frozen=True, slots=True)
class Hook:
    """Who wants to hear: where, of what, and the file of the secret that is shared with it."""

    url: str
    events: tuple[str, ...]
    secret_file: str

    @property
    def id(self) -> str:
        return hook_id(self.url)


@dataclass
class Courier:
    """Tells the hooks of one registry. One process has it."""

    place: Place
    hooks: tuple[Hook, ...]
    wall: Callable[[], float] = time.time
    dice: random.Random = field(default_factory=random.Random)
    _task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self._outbox: Outbox | None = None
        self._http = httpx.AsyncClient(
            follow_redirects=False,  # what is signed for one address is not for another
            trust_env=False,
            timeout=SECONDS,
            headers={"user-agent": AGENT, "content-type": "application/json"},
        )

    def start(self) -> None:
        """Go on for as long as the process lives."""
        self._task = asyncio.ensure_future(self._run())

    async def turn(self) -> int:
        """Gather what is new and tell each hook what it is to be told now; how much was heard."""
        if self._outbox is None:
            self._outbox = await asyncio.to_thread(lambda: Outbox(opened(self.place), self.wall))
        await asyncio.to_thread(self._outbox.gather, {hook.id: hook.events for hook in self.hooks})
        return sum(await asyncio.gather(*(self._tell(self._outbox, hook) for hook in self.hooks)))

    async def _run(self) -> None:
        while True:
            try:
                if await self.turn():
                    continue
            except Exception:  # a full disk, say: what is not told stays in the outbox
                log.exception("no_webhook")
            await asyncio.sleep(LOOK_SECONDS)

    async def _tell(self, outbox: Outbox, hook: Hook) -> int:
        heard = 0
        for letter in await asyncio.to_thread(outbox.due, hook.id):
            said, fine = await self.send(hook, letter)
            if fine:
                heard += 1
                await asyncio.to_thread(outbox.told, letter, said)
                continue
            age = self.wall() - letter.since
            again = None if age >= GIVE_UP_SECONDS else pause(letter.tries, self.dice.random())
            await asyncio.to_thread(outbox.failed, letter, said, again)
            log.warning(
                "webhook_failed",
                extra={
                    "host": httpx.URL(hook.url).host,
                    "event": letter.id,
                    "kind": letter.kind,
                    "said": said,
                    "again": again is not None,
                },
            )
            break  # who does not hear one does not hear the next
        return heard

    async def send(self, hook: Hook, letter: Letter) -> tuple[str, bool]:
        """Tell one event: how that ended, and whether it was heard, which is what 2xx says."""
        stamp = str(int(self.wall()))
        try:
            secret = await asyncio.to_thread(read_secret, Path(hook.secret_file))
            headers = {
                "webhook-id": letter.id,
                "webhook-timestamp": stamp,
                "webhook-signature": signature(secret, letter.id, stamp, letter.body),
            }
            async with (
                asyncio.timeout(SECONDS),
                self._http.stream("POST", hook.url, content=letter.body.encode(), headers=headers) as answer,
            ):
                status, fine = answer.status_code, answer.is_success  # what else it says nobody reads
        except SettingsInvalid as wrong:
            return str(wrong), False
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as wrong:
            return f"no answer: {type(wrong).__name__}", False
        if 300 <= status < 400:
            return f"HTTP {status}: it sends elsewhere, which is not followed; give the address itself", False
        return f"HTTP {status}", fine


class Post:
    """The courier as a deployment of its own."""

    async def __init__(self, place: Place, hooks: Sequence[Hook]) -> None:  # type: ignore[misc]  # Serve awaits it
        logs.configure()
        self._courier = Courier(place, tuple(hooks))
        self._courier.start()


def hooks_of(settings: Settings, environment: Mapping[str, str]) -> tuple[Hook, ...]:
    """The hooks of the settings. A secret of the environment is kept in a file of the state folder, ours alone.

    Raises SettingsInvalid for one that is nowhere, or too short.
    """
    return tuple(
        Hook(hook.url, hook.events, str(_secret_file(f"registry.webhooks.{place}", hook, settings, environment)))
        for place, hook in enumerate(settings.registry.webhooks)
    )


def _secret_file(key: str, hook: WebhookSettings, settings: Settings, environment: Mapping[str, str]) -> Path:
    if hook.secret_file is not None:
        return Path(hook.secret_file).expanduser().absolute()
    name = str(hook.secret_env)
    kept = settings.cluster.state / "webhooks" / name
    given = environment.get(name)
    if given is None:
        if not kept.is_file():  # a deploy before this one had it
            raise SettingsInvalid(f"{key}.secret_env", name, "it is not set here; export it, or use secret_file")
        return kept
    parse_secret(given, f"{key}.secret_env", name)
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = kept.with_suffix(".part")
    scratch.touch(mode=0o600)
    scratch.write_text(given.strip())
    scratch.replace(kept)
    return kept


def silent(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """What keeps hooks of the settings from being told anything, a line each: secrets that are nowhere, or none."""
    found = []
    for place, hook in enumerate(settings.registry.webhooks):
        key, name = f"registry.webhooks.{place}", str(hook.secret_env)
        kept = settings.cluster.state / "webhooks" / name
        try:
            if hook.secret_file is not None:
                read_secret(Path(hook.secret_file).expanduser())
            elif name in environment:
                parse_secret(environment[name], f"{key}.secret_env", name)
            elif not kept.is_file():
                remedy = "it is not set here, and no deploy had it; export it and deploy, or use secret_file"
                raise SettingsInvalid(f"{key}.secret_env", name, remedy)
        except SettingsInvalid as wrong:
            found.append(str(wrong))
    return found


def hook_id(url: str) -> str:
    """What a hook is called in the outbox: the same as long as its address is."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def signature(secret: bytes, event: str, stamp: str, body: str) -> str:
    """`v1,` and the base64 of the HMAC-SHA256 of `EVENT.STAMP.BODY`."""
    made = hmac.new(secret, f"{event}.{stamp}.{body}".encode(), hashlib.sha256)
    return f"v1,{base64.b64encode(made.digest()).decode()}"


def pause(tries: int, roll: float) -> float:
    """Seconds until it is told again, after `tries` that failed before this one; `roll`, from 0 to 1: chance."""
    return float(min(MOST_SECONDS, FIRST_SECONDS * 3.0 ** min(tries, 20))) * (0.8 + 0.4 * roll)


def read_secret(file: Path) -> bytes:
    """What is shared: base64 after `whsec_`, else the text. Raises SettingsInvalid, never with what stands there."""
    key = "registry.webhooks.secret_file"
    try:
        return parse_secret(file.read_text("utf-8"), key, str(file))
    except OSError as wrong:
        raise SettingsInvalid(key, str(file), f"it cannot be read ({wrong.strerror})") from None
    except UnicodeDecodeError:
        raise SettingsInvalid(key, str(file), "it is no text; write whsec_ and base64") from None


def parse_secret(text: str, key: str, where: str) -> bytes:
    """The bytes of a secret. Raises SettingsInvalid naming where it stands."""
    said = text.strip()
    try:
        found = base64.b64decode(said.removeprefix(PREFIX), validate=True) if said.startswith(PREFIX) else said.encode()
    except binascii.Error:
        raise SettingsInvalid(key, where, f"after {PREFIX} stands base64") from None
    if len(found) < LEAST_BYTES:
        raise SettingsInvalid(key, where, f"a secret has at least {LEAST_BYTES} bytes: openssl rand -base64 32")
    return found
