"""Where no kernels can be had there is one warning and plain torch; where they can, they are compiled once."""

import pytest
import structlog

from actors.models.kernels import build, building, interface
from actors.models.kernels.building import BuildFailed, library


def test_is_compiled_once_and_found_again(monkeypatch):
    first = library()

    def never(*_):
        raise AssertionError("compiled again")

    monkeypatch.setattr(building, "_compile", never)
    assert library() == first


def test_a_changed_source_asks_for_a_new_build(tmp_path, monkeypatch):
    (tmp_path / "a.cpp").write_text("int a;")
    monkeypatch.setattr(building, "SOURCES", tmp_path)
    before = building._key((), ["g++"])
    assert building._key((), ["g++"]) == before
    (tmp_path / "a.cpp").write_text("int b;")
    assert building._key((), ["g++"]) != before
    assert building._key(("-O1",), ["g++"]) != building._key(("-O2",), ["g++"])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("processor_features", lambda: {"sse2"}, "avx2"),
        ("shutil", type("Nothing", (), {"which": staticmethod(lambda _: None)}), "compiler"),
    ],
)
def test_says_what_is_missing(name, value, reason, monkeypatch):
    monkeypatch.setattr(building, name, value)
    with pytest.raises(BuildFailed, match=reason):
        library()


def test_a_source_that_does_not_compile_is_a_reason_and_leaves_nothing(tmp_path, monkeypatch):
    sources, cache = tmp_path / "src", tmp_path / "cache"
    sources.mkdir()
    (sources / "broken.cpp").write_text("this is no C++")
    monkeypatch.setattr(building, "SOURCES", sources)
    monkeypatch.setattr(building, "CACHE", cache)
    with pytest.raises(BuildFailed, match="error"):
        library()
    assert not list(cache.rglob("*.so"))


def test_progress_names_each_file(tmp_path, monkeypatch):
    sources, heard = tmp_path / "src", []
    sources.mkdir()
    (sources / "one.cpp").write_text('extern "C" int one() { return 1; }')
    monkeypatch.setattr(building, "SOURCES", sources)
    monkeypatch.setattr(building, "CACHE", tmp_path / "cache")
    assert library(heard.append).is_file()
    assert heard == ["compiled one.cpp (1 of 1)"]


def test_falls_back_with_one_warning(monkeypatch):
    def fail():
        raise BuildFailed("no luck")

    monkeypatch.setattr(interface, "library", fail)
    interface.loaded.cache_clear()
    try:
        with structlog.testing.capture_logs() as logs:
            assert not interface.available()
            assert not interface.available()
        assert [(log["event"], log["reason"]) for log in logs] == [("kernels_unavailable", "no luck")]
    finally:
        interface.loaded.cache_clear()


def test_building_ahead_says_why_it_cannot(monkeypatch):
    heard = []
    monkeypatch.setattr(building, "processor_features", lambda: {"sse2"})
    assert not build(heard.append)
    assert len(heard) == 1
    assert "avx2" in heard[0]


def test_cxx_names_the_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "ccache g++-13 -pipe")
    assert building._compiler() == ["ccache", "g++-13", "-pipe"]
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(BuildFailed, match=r"/nowhere/g\+\+ does not run"):
        library()
