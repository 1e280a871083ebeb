import pytest

from cluster.errors import SettingsInvalid
from pipelines.settings import Settings

MODELS = [{"name": "chat@v6", "path": "a"}, {"name": "chat@v7", "path": "b"}, {"name": "other", "path": "c"}]


def settings(**routes) -> Settings:
    return Settings.of({"models": MODELS, "routes": routes})


def test_versions_are_those_of_the_models_in_the_order_of_the_file():
    assert settings().versions == {"chat": ("v6", "v7"), "other": ("base",)}
    assert settings().routed == {"chat": ("v6", "v7")}
    assert settings(other={}).routed == {"chat": ("v6", "v7"), "other": ("base",)}
    assert Settings().routed == {}


def test_a_route_that_leads_somewhere():
    made = settings(chat={"weights": {"v6": 99.9, "v7": 0.1}, "shadow": {"version": "v7", "share": 10}})
    assert made.routes["chat"].weights == {"v6": 99.9, "v7": 0.1}
    assert settings(chat={"weights": {"v6": 33.3, "v7": 66.7}})


@pytest.mark.parametrize(
    ("routes", "key", "says"),
    [
        (
            {"chat": {"weights": {"v6": 60, "v7": 30}}},
            "routes.chat.weights",
            r"60 \+ 30 = 90 is not accepted; .* add up",
        ),
        ({"chat": {"weights": {"v6": 120, "v7": -20}}}, "routes.chat.weights.v6", "120.* from 0 to 100"),
        ({"chat": {"weights": {"v9": 100}}}, "routes.chat.weights.v9", '"v9" .* served: v6, v7'),
        ({"chart": {}}, "routes.chart", "not served .* chat, other"),
        ({"chat@v7": {}}, "routes.chat@v7", "a version has no versions; write routes.chat"),
        ({"chat": {"shadow": {"version": "v6"}}}, "routes.chat.shadow.version", "v6 .* mirror itself"),
        ({"chat": {"shadow": {"version": "v8"}}}, "routes.chat.shadow.version", "v8"),
        ({"chat": {"shadow": {"version": "v7", "share": 0}}}, "routes.chat.shadow.share", "above 0"),
        ({"chat": {"rules": [{"when": {"users": ["a"]}, "to": "v8"}]}}, "routes.chat.rules.0.to", "v6, v7"),
        ({"chat": {"rules": [{"when": {}, "to": "v7"}]}}, "routes.chat.rules.0.when", "say whose"),
        (
            {"chat": {"rules": [{"when": {"headers": {"Authorization": "x"}}, "to": "v7"}]}},
            "routes.chat.rules.0.when.headers",
            "a header of your own",
        ),
        (
            {"chat": {"rules": [{"when": {"headers": {"x-forwarded-user": "x"}}, "to": "v7"}]}},
            "routes.chat.rules.0.when.headers",
            "a header of your own",
        ),
        (
            {"chat": {"rules": [{"when": {"characters_least": 9, "characters_most": 3}, "to": "v7"}]}},
            "routes.chat.rules.0.when.characters_most",
            "at least 9",
        ),
        ({"chat": {"rules": [{"when": {"languages": ["klingon"]}, "to": "v7"}]}}, "languages", "one of"),
        ({"chat": {"weight": {"v6": 100}}}, "routes.chat.weight", "weights"),
    ],
)
def test_a_route_that_does_not_names_the_key_the_value_and_the_remedy(routes, key, says):
    with pytest.raises(SettingsInvalid, match=says) as wrong:
        settings(**routes)
    assert key in wrong.value.key


def test_a_model_without_a_version_is_the_base_beside_versions():
    made = Settings.of({"models": [{"name": "chat", "path": "a"}, {"name": "chat@v7", "path": "b"}]})
    assert made.versions == {"chat": ("base", "v7")}
    with pytest.raises(SettingsInvalid, match="version 'base' already"):
        Settings.of({"models": [{"name": "chat", "path": "a"}, {"name": "chat@base", "path": "b"}]})


@pytest.mark.parametrize("name", ["chat@", "@v7", "chat@v7@v8", "chat@v 7", "chat@../x", "chat@v7/x"])
def test_a_name_holds_one_version_and_no_path(name):
    with pytest.raises(SettingsInvalid, match=r"models\.0\.name"):
        Settings.of({"models": [{"name": name, "path": "a"}]})
