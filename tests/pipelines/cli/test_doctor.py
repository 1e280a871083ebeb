from dataclasses import replace
from pathlib import Path

import pytest
import torch

from actors.models.kernels.building import AVX2
from actors.registry.aliases import Aliases
from cluster.hardware import Machine
from cluster.settings import ClusterSettings
from pipelines.cli import doctor
from pipelines.settings import load
from pipelines.versions import registry_of
from tests.actors.registry.conftest import write_model

GIB = 2**30
SOUND = Machine(
    python=(3, 11, 7),
    compiler="/usr/bin/g++",
    compiler_fault="",
    processor="Some CPU",
    cores=8,
    features=("avx2", "fma", "f16c"),
    memory=16 * GIB,
    memory_free=8 * GIB,
    shared_memory=8 * GIB,
    open_files=65536,
    gpus=(),
)


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterSettings:
    return ClusterSettings(state_dir=tmp_path)


@pytest.mark.parametrize(
    ("check", "fault", "verdict"),
    [
        (doctor.python, {"python": (3, 10, 9)}, "fail"),
        (doctor.compiler, {"compiler": ""}, "fail"),
        (doctor.compiler, {"compiler": "/bin/false", "compiler_fault": "does not compile C++17"}, "fail"),
        (doctor.processor, {"features": ("avx2",)}, "warn"),
        (doctor.processor, {"features": ()}, "warn"),
        (doctor.processor, {"cores": 1}, "warn"),
        (doctor.memory, {"memory_free": 3 * GIB}, "warn"),
        (doctor.memory, {"memory_free": GIB}, "fail"),
        (doctor.shared_memory, {"shared_memory": 64 * 2**20}, "fail"),  # Docker's default
        (doctor.files, {"open_files": 4096}, "warn"),
        (doctor.files, {"open_files": 256}, "fail"),
    ],
)
def test_each_fault_is_found_and_has_a_remedy(
    cluster: ClusterSettings, check: object, fault: dict[str, object], verdict: str
) -> None:
    assert callable(check)
    assert check(SOUND, cluster).verdict == "ok"
    found = check(replace(SOUND, **fault), cluster)  # type: ignore[arg-type]
    assert found.verdict == verdict
    assert found.remedy


def test_a_token_that_others_can_read_is_found(cluster: ClusterSettings) -> None:
    token = cluster.state / "ray.token"
    token.write_text("x")
    token.chmod(0o600)
    assert doctor.token(SOUND, cluster).verdict == "ok"
    token.chmod(0o640)
    assert doctor.token(SOUND, cluster).verdict == "fail"


def test_ninja_is_found_beside_the_interpreter(cluster: ClusterSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert doctor.ninja(SOUND, cluster).verdict == "ok"
    monkeypatch.setattr("cluster.runtime.search_path", lambda: "/nowhere")
    assert (doctor.ninja(SOUND, cluster).verdict, doctor.ninja(SOUND, cluster).remedy[:16]) == (
        "warn",
        "run make install",
    )


def test_a_state_folder_that_cannot_be_written_is_found(cluster: ClusterSettings, tmp_path: Path) -> None:
    assert doctor.state(SOUND, cluster).verdict == "ok"
    assert doctor.state(SOUND, cluster.model_copy(update={"state_dir": tmp_path / "not" / "yet"})).verdict == "ok"
    assert list(tmp_path.iterdir()) == [], "it looks and leaves nothing"
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/strata")):
        found = doctor.state(SOUND, cluster.model_copy(update={"state_dir": place}))
        assert (found.verdict, str(place) in found.seen) == ("fail", True)


def test_a_taken_port_is_found(cluster: ClusterSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, verdict in ((True, "ok"), (False, "fail")):
        monkeypatch.setattr(
            "cluster.hardware.port_problem", lambda host, port, free=free: "" if free else "nginx listens"
        )
        found = doctor.port(SOUND, cluster)
        assert (found.verdict, found.remedy) == (verdict, "" if free else "nginx listens")


def test_a_taken_dashboard_port_is_no_fault_as_the_next_is_taken(
    cluster: ClusterSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.hardware.port_is_free", lambda host, port: False)
    found = doctor.dashboard_port(SOUND, cluster)
    assert (found.verdict, "next free one" in found.remedy) == ("warn", True)
    without = cluster.model_copy(update={"dashboard": False})
    assert doctor.dashboard_port(SOUND, without).verdict == "ok"


def test_doctor_and_kernels_ask_for_the_same_features() -> None:
    assert set(doctor.KERNELS) <= AVX2


def test_gpus_are_shown(cluster: ClusterSettings) -> None:
    assert "H200" in doctor.gpu(replace(SOUND, gpus=("NVIDIA H200, 143771 MiB",)), cluster).seen


def test_every_check_is_made_once(cluster: ClusterSettings) -> None:
    names = [finding.check for finding in doctor.examine(SOUND, cluster)]
    assert len(set(names)) == len(names) == len(doctor.CHECKS)


def test_what_the_settings_name_and_is_not_there_is_found(home: Path) -> None:
    def seen(text: str) -> list[tuple[str, str, str]]:
        (home / "strata.yaml").write_text(f"cluster: {{state_dir: {home / 'state'}}}\n{text}")
        return [(found.verdict, found.seen, found.remedy) for found in doctor.models(load().settings)]

    version = "models: [{name: chat, registry: chat@prod}]\n"
    ((verdict, said, remedy),) = seen(version)
    assert (verdict, "no model was ever pushed to" in said) == ("fail", True)
    assert "strata models push FOLDER --name chat" in remedy
    assert not (home / "state").exists(), "it looks and leaves nothing"
    model = write_model(home / "model", {"a": torch.ones(8)})
    registry = registry_of(load().settings)
    registry.push("chat", model, author="ada")
    ((verdict, said, _),) = seen(version)
    assert (verdict, said.startswith("models.0.registry: chat@prod: no version, alias or branch chat@prod")) == (
        "fail",
        True,
    )
    Aliases(registry).move("chat", "prod", "v1", author="ada")
    assert seen(version) == [("ok", "chat", "")]

    folders = f"models: [{{name: a, path: {model}}}, {{name: b, path: nowhere}}, {{name: c, path: state}}]\n"
    assert [(verdict, said.partition(": ")[0]) for verdict, said, _ in seen(folders)] == [
        ("fail", "models.1.path"), ("fail", "models.2.path"),
    ]  # fmt: skip
    more = (
        f"models: [{{name: a, path: {model}}}]\nroutes: {{a: {{evals: {{x: none.jsonl, y: held-out, z: z.jsonl}}}}}}\n"
    )
    (home / "z.jsonl").write_text("{}\n")
    found = seen(more)
    assert [said.partition(": ")[0] for _, said, _ in found] == ["routes.a.evals.x", "routes.a.evals.z"]
    assert "No such file" in found[0][1]
    assert all(remedy for _, _, remedy in found)
