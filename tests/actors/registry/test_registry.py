"""Versions of folders: pushed, named, compared, written out again, and what must not become one."""

import datetime
import json
import subprocess
import zlib
from concurrent.futures import ThreadPoolExecutor
from filecmp import dircmp

import pytest
import torch

from actors.registry import exchange
from actors.registry.aliases import Aliases
from actors.registry.moves import Moved
from actors.registry.pieces import PIECE
from actors.registry.registry import Registry
from cluster.errors import Barred, Conflict, InvalidRequest, ModelInvalid, NotFound, Unavailable
from tests.actors.registry.conftest import write_model


def push(registry, path, **more):
    return registry.push("chat", path, author="ada", **more)


def test_a_version_comes_out_as_it_went_in(registry, model, tmp_path):
    (model / "code").mkdir()
    (model / "code" / "prompt.jinja").write_text("{{ messages }}")
    pushed = push(registry, model, metadata={"license": "apache-2.0"}, message="First")
    assert (pushed.version, pushed.new) == ("v1", True)
    assert registry.checkout("chat", "v1", tmp_path / "out") == pushed.commit
    compared = dircmp(model, tmp_path / "out")
    assert (compared.left_only, compared.right_only, compared.diff_files) == ([], [], [])
    assert (tmp_path / "out" / "code" / "prompt.jinja").read_text() == "{{ messages }}"
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    shown = registry.show("chat")
    assert (shown.entry.author, shown.entry.at, shown.entry.message) == ("ada", 1_700_000_000, "First")
    assert (shown.names, shown.tensors, shown.metadata) == (("v1", "main"), 3, {"license": "apache-2.0"})
    assert shown.size == pushed.size == sum(path.stat().st_size for path in model.rglob("*") if path.is_file())


def test_the_same_folder_again_is_the_same_version(registry, model):
    first = push(registry, model)
    again = push(registry, model)
    assert (again.version, again.commit, again.stored, again.new) == ("v1", first.commit, 0, False)
    assert len(list(registry.log("chat"))) == 1


def test_a_sibling_stores_what_differs(registry, model, weights):
    push(registry, model)
    weights["embed"][0, 0] += 1  # the first of two pieces
    weights["norm"] *= 2
    write_model(model, weights, hidden_size=1024)
    pushed = push(registry, model)
    small = (model / "config.json").stat().st_size + (model / "tokenizer.json").stat().st_size
    assert pushed.stored == PIECE + 64 * 4 + small
    found = registry.diff("chat", "v1", "v2")
    assert (found.added, found.removed, found.changed) == ((), (), ("model.safetensors",))
    ((name, (added, gone, changed)),) = found.tensors.items()
    assert (name, added, gone, sorted(changed)) == ("model.safetensors", (), (), ["embed", "norm"])


def test_a_diff_shows_what_text_became(registry, model, weights):
    push(registry, model)
    write_model(model, weights | {"bias": torch.zeros(3)}, hidden_size=512)
    (model / "README.md").write_text("A model")
    push(registry, model)
    found = registry.diff("chat", "v1", "v2")
    assert found.added == ("README.md",)
    assert '-  "hidden_size": 1024' in found.lines["config.json"]
    assert '+  "hidden_size": 512' in found.lines["config.json"]
    assert found.tensors["model.safetensors"] == (("bias",), (), ())


def test_a_diff_says_what_became_of_large_and_binary_files(registry, model):
    def written(size, **more):
        vocab = {f"token-{number}": number for number in range(size)} | more
        (model / "tokenizer.json").write_text(json.dumps({"model": {"merges": [], "vocab": vocab}}))
        (model / "tokenizer.model").write_bytes(b"\xff\xfe" * size)
        push(registry, model)

    written(100_000)
    written(100_001, **{"token-5": 7})
    written(10)
    found = registry.diff("chat", "v1", "v2")
    before, after = found.sizes["tokenizer.json"]
    assert (found.changed, after - before) == (("tokenizer.json", "tokenizer.model"), len(', "token-100000": 100000'))
    assert found.sizes["tokenizer.model"] == (200_000, 200_002)
    assert found.entries == {"tokenizer.json": {"tokens": (1, 0, 1)}}
    assert found.lines == {"tokenizer.model": ()}
    found = registry.diff("chat", "v2", "v3")  # from pieces into the tree itself
    assert (found.added, found.removed, found.changed) == ((), (), ("tokenizer.json", "tokenizer.model"))
    assert found.entries == {"tokenizer.json": {"tokens": (0, 99_991, 1)}}


def test_git_reads_the_history(registry, model, weights, tmp_path):
    push(registry, model, message="First")
    write_model(model, weights | {"norm": torch.zeros(64)})
    push(registry, model, message="Second")
    Aliases(registry).move("chat", "prod", "v1", author="ada")

    def git(*words):
        line = ["git", "--git-dir", str(tmp_path / "registry" / "models" / "chat.git"), *words]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout

    assert git("log", "--format=%an %s", "main").splitlines() == ["ada Second", "ada First"]
    assert {"refs/tags/v1", "refs/aliases/prod"} <= set(git("for-each-ref", "--format=%(refname)").split())
    assert '"name": "norm"' in git("diff", "v1", "v2", "--", "model.safetensors.pieces")
    assert git("fsck", "--strict") == ""


def test_branches_begin_where_main_is(registry, model, weights):
    first = push(registry, model)
    write_model(model, weights | {"norm": torch.zeros(64)})
    tuned = push(registry, model, branch="tuned")
    assert [entry.id for entry, _ in registry.log("chat", "tuned")] == [tuned.commit, first.commit]
    assert registry.show("chat").entry.id == first.commit
    registry.branch("chat", "other", "v2")
    assert registry.show("chat", "other").entry.id == tuned.commit
    with pytest.raises(Conflict, match=r"the branch other is there already, at .*; take another name"):
        registry.branch("chat", "other", "v1")


def test_names_that_never_move(registry, model):
    push(registry, model)
    registry.tag("chat", "release-1")
    assert registry.show("chat", "release-1").names == ("v1", "release-1", "main")
    with pytest.raises(Conflict, match=r"the tag release-1 is there already, at .*; take another name"):
        registry.tag("chat", "release-1")


def test_one_name_is_one_thing(registry, model):
    push(registry, model)
    aliases = Aliases(registry)
    aliases.move("chat", "prod", "v1", author="ada")
    registry.tag("chat", "spring", "v1")
    registry.branch("chat", "tuned", "v1")
    for name, holder in {"prod": "an alias", "spring": "a tag", "tuned": "a branch", "v7": "a number"}.items():
        for kind, give in {
            "an alias": lambda name: aliases.move("chat", name, "v1", author="ada"),
            "a tag": lambda name: registry.tag("chat", name, "v1"),
            "a branch": lambda name: registry.branch("chat", name, "v1"),
            "a push": lambda name: push(registry, model, branch=name),
        }.items():
            if kind != holder and (kind, holder) != ("a push", "a branch"):
                with pytest.raises(Barred, match=f"the name {name} is taken: .*{holder}"):
                    give(name)
    assert registry.show("chat").names == ("v1", "spring", "main", "tuned", "@prod")


def test_a_number_is_a_version_whatever_else_has_it(registry, model, weights):
    """As an alias could be called before names were one space."""
    first = push(registry, model)
    write_model(model, weights | {"norm": torch.zeros(64)})
    push(registry, model)
    history = registry.history("chat")
    history._repo.refs[b"refs/aliases/v1"] = history.resolve("v2").encode()
    assert history.resolve("v1") == first.commit
    with pytest.raises(InvalidRequest, match="v1 is alias and tag; say which"):
        registry.remove("chat", "v1")
    assert registry.remove("chat", "v1", "alias") == "alias"
    assert registry.show("chat", "v2").names == ("v2", "main")


def test_names_go_and_versions_stay(registry, model):
    push(registry, model)
    Aliases(registry).move("chat", "prod", "v1", author="ada")
    registry.tag("chat", "spring", "v1")
    registry.branch("chat", "tuned", "v1")
    history = registry.history("chat")
    history._repo.refs.pack_refs(all=True)  # as git does
    assert [registry.remove("chat", name) for name in ("prod", "spring", "tuned")] == ["alias", "tag", "branch"]
    assert registry.show("chat").names == ("v1", "main")
    for name in ("main", "v1"):
        with pytest.raises(Barred, match="is for good"):
            registry.remove("chat", name)
    with pytest.raises(NotFound, match="prod"):
        registry.remove("chat", "prod")
    with pytest.raises(InvalidRequest, match="--kind"):
        registry.remove("chat", "v1", "stage")
    moved = Aliases(registry).move("chat", "prod", "v1", author="ada")
    assert next(entry.id for entry, _ in Aliases(registry).log("chat", "prod")) == moved.revision


def test_of_a_hundred_promotions_of_one_revision_one_wins(registry, model, weights, tmp_path):
    push(registry, model)
    write_model(model, weights | {"norm": torch.zeros(64)})
    push(registry, model)
    Aliases(registry).move("chat", "prod", "v1", author="ada")

    def promote(_):
        try:
            own = Aliases(Registry(tmp_path / "registry"))
            return own.move("chat", "prod", "v2", expected="v1", author="ada")
        except Conflict as lost:
            return lost

    with ThreadPoolExecutor(16) as pool:
        ended = list(pool.map(promote, range(100)))
    assert sum(isinstance(each, Moved) for each in ended) == 1
    assert registry.show("chat", "prod").names == ("v2", "main", "@prod")


def test_what_a_name_may_be(registry, model):
    for name in ("../x", "..\\x", "%252e%252e", "", "A", "a/b", "x.lock", "a..b", "é", "a" * 65, ".git"):
        with pytest.raises(InvalidRequest, match="model"):
            registry.push(name, model, author="ada")
        with pytest.raises(InvalidRequest):
            push(registry, model, branch=name)
    assert registry.models() == []


def test_what_does_not_exist_says_what_does(registry, model):
    with pytest.raises(NotFound, match="no model chat"):
        registry.show("chat")
    push(registry, model)
    with pytest.raises(NotFound, match="no model other; there is chat"):
        registry.show("other")
    with pytest.raises(NotFound, match="prod; there is v1, main"):
        registry.show("chat", "prod")


EMBEDDING = {"model.embed_tokens.weight": torch.zeros(6, 4)}


def told(folder, name, template):
    (folder / name).write_text(json.dumps({"chat_template": template}))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "x", "auto_map": {"a": 1}}'), "auto_map"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 64), "header"),
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"x"), "pickled"),
        (lambda folder: (folder / "data.NPY").write_bytes(b"x"), "pickled"),
        (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "is a link"),
        (lambda folder: (folder / "a\u0301.txt").write_text("x"), "NFC"),
        (lambda folder: (folder / "a\u202e.txt").write_text("x"), "nobody sees"),
        (lambda folder: (folder / "config.json").write_text("{}"), "no JSON object with a model_type"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"no tokenizer \(Model missing"),
        (lambda folder: (folder / "tokenizer.json").write_text('{"model": {}}'), r"tokenizer.json: is no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff"), r"tokenizer.json: is no tokenizer"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{% if"), r"chat_template.jinja: .* is no Jinja"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{{" + "(" * 9999), "is no Jinja"),
        (lambda folder: (folder / "chat_template.jinja").write_bytes(b"\xff"), "no text in UTF-8"),
        (lambda folder: told(folder, "tokenizer_config.json", "{% for x %}"), r"tokenizer_config.json: .* no Jinja"),
        (lambda folder: told(folder, "tokenizer_config.json", [{"name": "a", "template": "{{"}]), "no Jinja"),
        (lambda folder: told(folder, "chat_template.json", 5), "chat_template that is no text"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("["), "tokenizer_config.json: is no JSON"),
        (lambda folder: write_model(folder, {}), "holds no tensor"),
        (lambda folder: write_model(folder, EMBEDDING, vocab_size=5, hidden_size=4), r"as \[6, 4\] .* vocab_size 5"),
        (
            lambda folder: write_model(folder, EMBEDDING, text_config={"vocab_size": 6, "hidden_size": 8}),
            "hidden_size 8",
        ),
        (lambda folder: (folder / "Config.json").write_text("{}"), "Config.json and config.json, which look the same"),
        (lambda folder: (folder / "CON.txt").write_text("x"), "device of Windows"),
        (lambda folder: (folder / "nul").mkdir(), "device of Windows"),
        (lambda folder: (folder / "README.md ").write_text("x"), "blank or a dot"),
        (lambda folder: (folder / "README.md.").write_text("x"), "blank or a dot"),
        (lambda folder: (folder / "x.pieces").write_text("{}"), "registry's own"),
    ],
)
def test_what_must_not_become_a_version(registry, model, change, problem):
    change(model)
    with pytest.raises(ModelInvalid, match=problem):
        push(registry, model)
    assert registry.gc() >= 0
    with pytest.raises(NotFound):
        registry.show("chat")


@pytest.mark.parametrize(
    ("weights", "config"),
    [
        (EMBEDDING, {"vocab_size": 6, "hidden_size": 4, "architectures": ["NewForCausalLM"]}),
        (EMBEDDING, {"text_config": {"vocab_size": 6, "hidden_size": 4}, "architectures": 5}),
        (EMBEDDING, {"hidden_size": 5}),  # half of what it takes to judge
        ({"model.embed_tokens.weight": torch.zeros(6, 1, dtype=torch.uint8)}, {"vocab_size": 6, "hidden_size": 4}),
    ],
)
def test_models_of_new_kinds_are_pushed(registry, tmp_path, weights, config):
    path = write_model(tmp_path / "model", weights, **config)
    (path / "chat_template.jinja").write_text(
        "{% generation %}{% for x in y %}{% break %}{% endfor %}{% endgeneration %}"
    )
    told(path, "tokenizer_config.json", [{"name": "default", "template": "{{ messages | unheard_of }}"}])
    assert push(registry, path).version == "v1"


def test_metadata_is_plain_and_small(registry, model):
    with pytest.raises(InvalidRequest, match="metadata"):
        push(registry, model, metadata={"loss": float("nan")})
    with pytest.raises(InvalidRequest, match="metadata"):
        push(registry, model, metadata={"text": "x" * 100_000})


def test_metadata_of_a_kind_that_json_lacks_name_their_key(registry, model):
    with pytest.raises(InvalidRequest, match=r"metadata data.day: .*2026.*, a date, is not accepted"):
        push(registry, model, metadata={"data": {"day": datetime.date(2026, 1, 2)}})


ITSELF: list[object] = []
ITSELF.append(ITSELF)
BOMB: list[object] = []
for _ in range(20):
    BOMB = [BOMB] * 9


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"metrics.exact_match": "high"}, 'metadata metrics.exact_match: "high" is not accepted; a metric is a finite'),
        ({"metrics": {"exact_match": "high"}}, 'metadata metrics.exact_match: "high" is not accepted'),
        ({"metrics": {"exact_match": True}}, "metrics.exact_match: true is not accepted"),
        ({"metrics": {"exact_match": [0.5]}}, "metrics.exact_match: "),
        ({"metrics": {"loss": float("inf")}}, "metrics.loss: .*finite"),
        ({"metrics": 3, "metrics.x": 3}, "metadata metrics: a value and a group of values is not accepted"),
        ({"a": {"b": 1}, "a.b.c": 1}, "metadata a.b: a value and a group"),
        ({"k" * 5_000: 1}, r"metadata: the key k+… is not accepted; a key has at most 500 characters"),
        ({"a" * 250: {"b" * 250: 1}}, "metadata: the key a+… is not accepted"),
        ({"a": ITSELF}, "metadata a: a list that holds itself"),
        ({"a": BOMB}, "more than 65536 values"),
        ({1: "x"}, "the key 1, a number, is not accepted; write '1', in quotes"),
        ({"a": {True: "x"}}, "metadata a: the key true, a truth value, is not accepted"),
        ({"": "x"}, "an empty key"),
        ({"a": {None: "x"}}, "metadata a: an empty key"),
    ],
)  # fmt: skip
def test_metadata_that_nobody_could_search_are_refused_before_anything_is_kept(registry, model, metadata, said):
    with pytest.raises(InvalidRequest, match=said):
        push(registry, model, metadata=metadata)
    assert registry.models() == []


def test_lists_of_what_is_alike_and_of_objects_are_metadata(registry, model):
    known = {"metrics": {"held": {"exact_match": 0.5}, "loss": 1}, "data": ["a", {"name": "b"}], "data.count": 2}
    push(registry, model, metadata=known)
    assert registry.show("chat").metadata == known


@pytest.mark.parametrize("name", ["a.lock", "a..b"])
def test_names_that_git_keeps_for_itself_say_so(registry, model, name):
    with pytest.raises(InvalidRequest, match=r"git keeps two dots in a row and the ending \.lock"):
        push(registry, model, branch=name)


def test_changed_and_missing_content_is_found_and_refused(registry, model, tmp_path):
    push(registry, model)
    assert registry.fsck() == []
    first, second = list(registry.blobs)[:2]
    (tmp_path / "registry" / "content" / first[:2] / first[2:]).write_bytes(b"another")
    registry.blobs.remove(second)
    problems = registry.fsck()
    assert len(problems) == 2
    assert all(str(problem).startswith("chat v1 model.safetensors: ") for problem in problems)
    with pytest.raises((Unavailable, ModelInvalid), match=r"chat@v1 \(model.safetensors\)"):
        registry.checkout("chat", "main", tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_changed_content_is_whole_again_once_it_was_repaired_and_pushed(registry, model, tmp_path):
    push(registry, model)
    digest = next(iter(registry.blobs))
    (tmp_path / "registry" / "content" / digest[:2] / digest[2:]).write_bytes(b"another")
    assert not push(registry, model).new
    assert registry.fsck() != [], "what is there is not read by a push"
    (problem,), (removed,) = registry.repair()
    assert digest in str(problem)
    assert removed == f"the piece {digest}"
    push(registry, model)
    assert registry.fsck() == []
    assert registry.repair() == ([], [])


@pytest.mark.parametrize("changed", [True, False])
def test_content_that_is_not_as_it_was_names_the_version_the_file_and_the_remedy(registry, model, tmp_path, changed):
    write_model(model, {"a": torch.ones(16)})
    push(registry, model)
    digests = list(registry.blobs)
    write_model(model, {"a": torch.zeros(16)})
    push(registry, model)
    for digest in registry.blobs:
        if digest not in digests and changed:
            (tmp_path / "registry" / "content" / digest[:2] / digest[2:]).write_bytes(b"another")
        elif digest not in digests:
            registry.blobs.remove(digest)
    wrong, said = (Unavailable, "fsck --repair`, then push its version") if changed else (ModelInvalid, "push it again")
    for what, act in (
        (r"chat@v2 \(model.safetensors\)", lambda: registry.checkout("chat", "main", tmp_path / "out")),
        (r"chat@v2 \(model.safetensors\)", lambda: exchange.export(registry, "chat", "v2", tmp_path / "x", "mlflow")),
        ("chat@v2 or v1", lambda: registry.diff("chat", "v2", "v1")),
    ):
        with pytest.raises(wrong, match=f"{what}.*{said}"):
            act()


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}, "names model-1.safetensors, "),
        ({"weight_map": {"a": "model.safetensors", "b": "other.safetensors"}}, "names other.safetensors, not there"),
        ({"weight_map": {"norm": "model.safetensors", "b": "model.safetensors"}}, "names b, which model.safe"),
        ({"weight_map": ["model.safetensors"]}, "weight_map of file names"),
        ({"weight_map": {"a": 1}}, "weight_map of file names"),
        ([], "weight_map of file names"),
    ],
)  # fmt: skip
def test_a_folder_that_was_copied_in_part_is_refused(registry, model, index, said):
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelInvalid, match=said):
        push(registry, model)
    assert registry.models() == []
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"norm": "model.safetensors"}}))
    assert push(registry, model).new


def test_a_part_without_the_others_is_refused(registry, model):
    (model / "model.safetensors").rename(model / "model-00002-of-00004.safetensors")
    with pytest.raises(ModelInvalid, match=r"00002-of-00004.*of which model-00001-of-00004.safetensors, .*-00004-of"):
        push(registry, model)
    (model / "model-00002-of-00004.safetensors").rename(model / "model-00001-of-00001.safetensors")
    assert push(registry, model).new


@pytest.mark.parametrize(("config", "prefix"), [({}, "model."), ({}, ""), ({"inner": 1}, "model.language_model.")])
def test_layers_that_are_missing_are_named(registry, tmp_path, config, prefix):
    asked = {"num_hidden_layers": 4}
    said = {"text_config": asked} if config else asked
    weights = {f"{prefix}layers.{layer}.norm.weight": torch.ones(8) for layer in (0, 3)}
    folder = write_model(tmp_path / "half", weights, **said)
    with pytest.raises(ModelInvalid, match="num_hidden_layers 4, and there is no tensor of layer 1, layer 2"):
        push(registry, folder)
    weights |= {f"{prefix}layers.{layer}.norm.weight": torch.ones(8) for layer in (1, 2, 4)}
    assert push(registry, write_model(folder, weights, **said)).new, "one more may be of a kind of its own"


def test_a_list_of_pieces_that_was_made_up_is_refused(registry, model):
    push(registry, model)
    history = registry.history("chat")
    tree = history.files(history.resolve("v1"))
    for text in (
        b"",
        b"{}",
        b'{"format": 1, "size": 8, "head": []}',
        b'{"format": 1, "size": -1, "head": ["../../x"]}',
    ):
        commit = history.commit(tree | {"model.safetensors.pieces": text}, (), "eve", 0, "x", registry._signer.sign)
        history.move("refs/heads/evil", commit, None)
        with pytest.raises(ModelInvalid, match="list of pieces"):
            registry.show("chat", "evil")
        (registry.folder / "models" / "chat.git" / "refs" / "heads" / "evil").unlink()


def test_a_path_out_of_the_folder_is_not_written(registry, model, tmp_path):
    push(registry, model)
    history = registry.history("chat")
    tree = history.files(history.resolve("v1"))
    history.move(
        "refs/heads/evil", history.commit(tree | {"../out.txt": b"x"}, (), "eve", 0, "x", registry._signer.sign), None
    )
    with pytest.raises(ModelInvalid, match="leads out"):
        registry.checkout("chat", "evil", tmp_path / "a" / "b")
    assert not (tmp_path / "a" / "out.txt").exists()


def test_what_a_cut_push_left_is_collected_and_nothing_else(registry, model, tmp_path):
    push(registry, model)
    registry.blobs.put(b"of a push that was cut")
    assert registry.gc() == 1
    assert registry.fsck() == []
    registry.checkout("chat", "main", tmp_path / "out")


def test_refs_that_were_being_moved_arrive(registry, model, weights, tmp_path):
    first = push(registry, model)
    repository = tmp_path / "registry" / "models" / "chat.git"
    wanted = {"refs/heads/late": first.commit, "refs/tags/v9": first.commit}
    (repository / "strata.pending").write_text(json.dumps(wanted))
    (repository / "refs" / "heads" / "main.lock").touch()  # of git, which was killed
    assert "v9" in registry.show("chat", "late").names
    write_model(model, weights | {"norm": torch.zeros(64)})
    assert push(registry, model).version == "v2"


def test_a_folder_that_is_there_is_not_written_over(registry, model, tmp_path):
    push(registry, model)
    with pytest.raises(Conflict, match="is there already; name another, or remove it"):
        registry.checkout("chat", "v1", model)


def test_an_object_of_git_that_was_changed_is_refused(registry, model, tmp_path):
    """The signature is over digests alone: what has a digest's name must have that digest."""
    push(registry, model)
    history = registry.history("chat")
    entry = history._repo[history._repo[history.resolve("v1").encode()].tree][b"config.json"][1].decode()
    path = tmp_path / "registry" / "models" / "chat.git" / "objects" / entry[:2] / entry[2:]
    path.chmod(0o644)
    for content in (zlib.compress(b"blob 3\x00{} "), b"no object at all"):
        path.write_bytes(content)
        for act in (
            lambda: registry.checkout("chat", "v1", tmp_path / "out"),
            lambda: registry.pin("chat", "v1"),
            lambda: registry.show("chat", "v1"),
        ):
            with pytest.raises(ModelInvalid, match=f"its object {entry} was changed"):
                act()


def test_a_lost_head_is_nothing_to_begin_anew(registry, model):
    registry.push("chat", model, author="ada")
    (registry.folder / "models" / "chat.git" / "HEAD").unlink()
    lost = r"its HEAD is lost.*put it back: echo 'ref: refs/heads/main' >"
    for act in (lambda: registry.push("chat", model, author="ada"), lambda: registry.show("chat"), registry.gc):
        with pytest.raises(ModelInvalid, match=lost):
            act()
    assert [place.model for fault in registry.fsck() for place in fault.places] == ["chat"]
    (registry.folder / "models" / "chat.git" / "HEAD").write_text("ref: refs/heads/main\n")
    assert registry.gc() == 0
    assert registry.fsck() == []
    assert registry.show("chat").signed
