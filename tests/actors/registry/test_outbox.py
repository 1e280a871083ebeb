"""What has happened is told of once, in order, however often somebody looks."""

import pytest

from actors.registry import events
from actors.registry.outbox import GIVEN_UP, KEPT_SECONDS, TOLD, WAITS, Outbox, wants
from actors.registry.settings import KINDS, RegistrySettings
from actors.registry.stages import Stage
from tests.actors.registry.test_candidates import World

ALL = {"one": ()}


@pytest.fixture
def world(registry, tmp_path) -> World:
    made = World(registry, tmp_path)
    made.push()
    return made


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def outbox(world) -> Outbox:
    made = Outbox(world.registry, Clock())
    assert made.gather(ALL) == 0, "from now on"
    return made


def kinds(outbox: Outbox, hook: str = "one") -> list[str]:
    return [letter.kind for letter in outbox.due(hook)]


def test_every_step_of_a_version_is_told(world, outbox):
    world.aliases.move("chat", "prod", "v1", author="ada")
    world.push("tuned")
    number = world.desk.open("chat", "tuned", "Better", author="ada")
    world.desk.review("chat", number, principal="bob", approves=True)
    world.desk.evaluate("chat", number, {"eval.exact_match": 0.9}, principal="bob")
    world.desk.close("chat", number, principal="ada")
    world.desk.reopen("chat", number, principal="ada")
    version = world.desk.merge("chat", number, principal="bob").version
    world.stages.move("chat", version, Stage.CANDIDATE, author="ada")
    world.stages.move("chat", version, Stage.CANARY, author="ada")
    world.aliases.move("chat", "prod", version, "v1", author="ada")
    world.aliases.rollback("chat", "prod", author="ada")
    world.registry.tag("chat", "spring", "v1")
    assert outbox.gather(ALL) == outbox.gather(ALL) + len(outbox.due("one"))
    assert set(kinds(outbox)) == set(KINDS)
    told = {letter.id: letter for letter in outbox.due("one")}
    bodies = [events.json.loads(letter.body) for letter in told.values()]
    merged = next(body["data"] for body in bodies if body["type"] == "merge_request.merged")
    assert (merged["number"], merged["version"], merged["author"]) == (number, version, "bob")
    moves = [body["data"] for body in bodies if body["type"] == "alias.moved"]
    assert {(move["from"], move["version"], move["back"]) for move in moves} == {
        (None, "v1", False), ("v1", version, False), (version, "v1", True)
    }  # fmt: skip
    assert [(body["data"]["was"], body["data"]["stage"]) for body in bodies if body["type"] == "stage.moved"] == [
        ("draft", "candidate"), ("candidate", "canary")
    ]  # fmt: skip
    again = Outbox(world.registry, Clock())
    assert again.gather(ALL) == 0
    assert {letter.id for letter in again.due("one")} == set(told)


def test_what_is_said_again_is_no_event(world, outbox):
    world.push("tuned")
    number = world.desk.open("chat", "tuned", "Better", author="ada")
    outbox.gather(ALL)
    for _ in range(2):
        world.desk.review("chat", number, principal="bob", approves=True)
        world.desk.evaluate("chat", number, {"eval.exact_match": 0.9}, principal="bob")
    request = world.desk.show("chat", number)[0]
    at = world.registry.history("chat").refs("refs/requests/")[str(number)]
    content = {"request.json": request.text()}
    world.registry.record("chat", f"refs/requests/{number}", content, "bob", "Approve", at)  # as an older one wrote it
    before = len(outbox.due("one"))
    outbox.gather(ALL)
    assert kinds(outbox)[before:] == ["merge_request.reviewed", "merge_request.evaluated"]


def test_a_hook_hears_what_it_wants_from_when_it_came(world, outbox):
    world.push()
    hooks = {**ALL, "two": ("alias.*",), "three": ("version.created",)}
    outbox.gather(hooks)
    assert (kinds(outbox), kinds(outbox, "three")) == (["version.created"], [])
    world.aliases.move("chat", "prod", "v1", author="ada")
    world.push()
    outbox.gather(hooks)
    assert (kinds(outbox, "two"), kinds(outbox, "three")) == (["alias.moved"], ["version.created"])
    outbox.gather(ALL)
    assert kinds(outbox, "two") == []


def test_a_new_model_is_told_from_its_beginning(world, outbox):
    world.registry.push("other", world.folder / "model", author="ada")
    outbox.gather(ALL)
    assert kinds(outbox) == ["version.created", "branch.created"]


def test_what_fails_waits_and_what_is_told_goes(world, outbox):
    world.push()
    outbox.gather(ALL)
    (letter,) = outbox.due("one")
    outbox.failed(letter, "HTTP 500", 30.0)
    assert outbox.due("one") == []
    outbox._wall.now += 31
    (letter,) = outbox.due("one")
    assert (letter.tries, letter.said, letter.state) == (1, "HTTP 500", WAITS)
    outbox.failed(letter, "HTTP 500", None)
    assert (outbox.due("one"), outbox.all()[0].state) == ([], GIVEN_UP)
    assert outbox.again() == 1
    outbox.told(outbox.due("one")[0], "HTTP 204")
    assert (outbox.all()[0].state, outbox.all()[0].tries) == (TOLD, 1)
    outbox._wall.now += KEPT_SECONDS + 1
    outbox.gather(ALL)
    assert outbox.all() == []


@pytest.mark.parametrize(
    ("wanted", "kind", "does"),
    [((), "tag.created", True), (("*",), "tag.created", True), (("tag.*",), "tag.created", True),
     (("alias.*",), "tag.created", False), (("tag.created",), "tag.created", True)],
)  # fmt: skip
def test_wants(wanted, kind, does):
    assert wants(wanted, kind) is does


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        ({"url": "ftp://a/b", "secret_file": "x"}, "http://"),
        ({"url": "https://", "secret_file": "x"}, "a host"),
        ({"url": "https://ann:pw@a/b", "secret_file": "x"}, "user, password"),
        ({"url": "http://169.254.169.254/latest", "secret_file": "x"}, "network's"),
        ({"url": "http://a:99999/", "secret_file": "x"}, "no URL"),
        ({"url": "https://a/b"}, "secret_env or secret_file"),
        ({"url": "https://a/b", "secret_file": "x", "secret_env": "X"}, "secret_env or secret_file"),
        ({"url": "https://a/b", "secret_file": "x", "events": ["merged"]}, "there is alias"),
    ],
)
def test_a_hook_that_cannot_be_is_refused(hook, says):
    with pytest.raises(ValueError, match=says):
        RegistrySettings.model_validate({"webhooks": [hook]})
