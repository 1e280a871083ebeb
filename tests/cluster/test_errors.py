"""Every error of the tree crosses a process whole and says what it is about."""

import ast
import inspect
import math
import pickle

import pytest

from cluster import errors
from cluster.errors import ReplicaLost, StrataError, listed, revived, shorten

SAMPLES: dict[str, tuple[object, ...]] = {
    "StrataError": ("went wrong",),
    "InvalidRequest": ("top_p", "spam", "give less"),
    "ContextTooLong": ("messages", "spam", "give less"),
    "Refused": ("spam",),
    "SettingsInvalid": ("gateway.port", "spam", "give less"),
    "ModelInvalid": ("/models/spam", "no weights", "download it"),
    "ArchitectureUnsupported": ("/models/spam", "SpamForCausalLM", "take Llama"),
    "Unauthenticated": ("no key",),
    "Forbidden": ("spam", "models:deploy"),
    "NotFound": ("model", "spam", ("starter", "eggs")),
    "Conflict": ("aliases/prod", "0123abcd", "4567cdef"),
    "Barred": ("the folder spam", "is there already", "name another"),
    "IllegalMove": ("chat@v1", "draft", "live", ("candidate", "retired")),
    "MergeConflict": ("tuned", "main", ("spam.json, which both changed",)),
    "Overloaded": ("spam", 256, 3),
    "ExtraMissing": ("speech", "spam"),
    "Unavailable": ("spam", "it is gone"),
    "ReplicaLost": ("spam", "rank 1 died"),
    "SuspectLost": ("spam", "rank 1 died", 2),
    "NotReady": ("spam", "it is starting"),
    "GivenUp": (2, 17),
    "PlacementImpossible": ("spam", "2 x 1 GPU", "nothing", "add a node"),
    "DeadlineExceeded": ("spam", 2.5),
}
STATUSES = {
    "StrataError": 500, "InvalidRequest": 400, "ContextTooLong": 400, "SettingsInvalid": 400, "ModelInvalid": 400,
    "Refused": 400, "ArchitectureUnsupported": 400, "Unauthenticated": 401, "Forbidden": 403, "NotFound": 404,
    "Conflict": 409, "Barred": 409, "IllegalMove": 409, "MergeConflict": 409, "Overloaded": 429,
    "ExtraMissing": 501, "Unavailable": 503, "ReplicaLost": 503, "SuspectLost": 503, "NotReady": 503,
    "PlacementImpossible": 503,
    "DeadlineExceeded": 504, "GivenUp": 500,
}  # fmt: skip
RETRYABLE = {"Overloaded", "Unavailable", "ReplicaLost", "SuspectLost", "NotReady", "DeadlineExceeded"}
KINDS = {
    "invalid_request_error", "authentication_error", "permission_error", "not_found_error", "rate_limit_error",
    "timeout_error", "server_error", "conflict_error",
}  # fmt: skip


def tree(root: type[StrataError] = StrataError) -> list[type[StrataError]]:
    own = [kind for kind in root.__subclasses__() if kind.__module__ == errors.__name__]
    return [root, *(kind for child in own for kind in tree(child))]


CLASSES = sorted(set(tree()), key=lambda kind: kind.__name__)
every_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


def test_the_samples_and_the_drawing_are_the_tree():
    names = {kind.__name__ for kind in CLASSES}
    assert names == SAMPLES.keys() == STATUSES.keys()
    drawn = {word for word in errors.__doc__.split("StrataError\n", 1)[1].replace("─", " ").split() if word in names}
    assert drawn == names - {"StrataError"}


@every_class
def test_an_error_pickles_whole(kind):
    error = kind(*SAMPLES[kind.__name__])
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is kind
        assert (copy.args, str(copy), vars(copy), copy.param) == (error.args, str(error), vars(error), error.param)


@every_class
def test_an_error_says_what_it_is_about(kind):
    values = SAMPLES[kind.__name__]
    said = str(kind(*values))
    for value in values:
        for part in value if isinstance(value, tuple) else (value,):
            assert str(part) in said


@every_class
def test_an_error_has_status_kind_and_whether_to_retry(kind):
    assert kind.status == STATUSES[kind.__name__]
    assert kind.kind in KINDS
    assert kind.retryable == (kind.__name__ in RETRYABLE)


@every_class
def test_arguments_are_positional_and_all_handed_up(kind):
    error = kind(*SAMPLES[kind.__name__])
    assert len(error.args) == len(SAMPLES[kind.__name__])
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    assert all(parameter.kind is not inspect.Parameter.KEYWORD_ONLY for parameter in parameters)


@pytest.mark.parametrize("name", ["InvalidRequest", "ContextTooLong", "SettingsInvalid"])
def test_the_field_at_fault_is_told(name):
    error = getattr(errors, name)("some.field", 1, "do better")
    assert error.param == "some.field"
    assert str(error).startswith("some.field: 1 ")


ODD = [
    None, math.nan, "", "x" * 10**6, "a\nb\r\x1b[31m\x00", "\ud800", "你好", b"\xff", 10**400, 10**5_000, -(10**5_000),
    [1] * 10**5, {"a": "\u202e"}, object(), {"deep": [10**5_000]},
]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_any_value_can_be_shown(value):
    """One short printable line, whatever a client sent; and the error that holds it still crosses a process."""
    said = shorten(value)
    assert len(said) <= 120
    assert said.isprintable()
    assert said.encode().decode() == said
    error = errors.InvalidRequest("field", value, "no")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_ordinary_text_is_shown_as_it_is():
    assert shorten("天气 is fine") == "天气 is fine"
    assert shorten("tab\there") == "tab\\there"
    assert ast.literal_eval(shorten([1, "a"])) == [1, "a"]


def test_a_repr_that_fails_does_not_hide_the_error():
    class Broken:
        def __repr__(self):
            raise RuntimeError("no")

    assert "Broken" in shorten(Broken())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("5", '"5"'), (5, "5"), (None, "null"), (True, "true"), ({"a": [1, "b"]}, '{"a": [1, "b"]}'), ("\n", r'"\n"'),
        ("x" * 500, '"' + "x" * 117 + '…"'), (10**5000, "<int that cannot be printed>"), ({1, 2}, "{1, 2}"),
        ("\ud800", r'"\ud800"'), ("天", '"天"'),
    ],
    ids=range(11),  # pytest cannot print them all either
)  # fmt: skip
def test_what_was_sent_is_shown_as_json(value, shown):
    assert errors.sent(value) == shown
    if not isinstance(value, str):  # a text may describe: who repeats one says so
        assert str(errors.InvalidRequest("f", value, "r")) == f"f: {shown} is not accepted; r"


def test_what_there_is_is_in_the_order_of_its_numbers_and_of_many_the_first() -> None:
    names = [f"v{number}" for number in range(17, 0, -1)]
    assert listed(names) == (*(f"v{number}" for number in range(1, 11)), "and 7 more")
    assert listed(["v10", "main", "v2", "2b", "10b"]) == ("2b", "10b", "main", "v2", "v10")
    assert listed([]) == ()


def test_only_our_own_errors_come_to_life() -> None:
    assert isinstance(revived("ReplicaLost", ("a", "b")), ReplicaLost)
    assert type(revived("SystemExit", (1,))) is StrataError
    assert type(revived("shorten", ("x",))) is StrataError
    assert type(revived("ReplicaLost", ())) is StrataError
