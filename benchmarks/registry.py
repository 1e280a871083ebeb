"""What do versions cost: a push, a fine-tuned sibling's push, a fetch and a diff, beside copies of files and DVC?

    python -m benchmarks.registry [--gigabytes N] [--rounds N] [--no-peer]

A random model in bfloat16 and a sibling of which the last quarter of the layers was trained on. Each way in turns, in a
new folder, from files that lie in the page cache and into it, and from the disk until all is on the disk; medians of
seconds. Copies are those of the same folder: plain, and with the SHA-256 of what is copied in the same pass. DVC (`dvc
add`, `dvc checkout`) in an environment of its own, its cache on the same disk; its commands and ours are processes,
with their imports. Writes results/registry.json.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import save_file

from actors.registry.copies import Copies
from actors.registry.registry import Registry
from benchmarks.peers import environments
from benchmarks.record import quiet, write

HIDDEN, INNER = 2048, 5632  # a layer of 46 M parameters, 91 MB
STORED, PUSHED, FETCHED = 1.02, 1.3, 1.3  # what we want at the most
ROOT = Path(__file__).parent.parent
SHARE = 4  # one layer of so many is trained on


def layer(number: int) -> dict[str, torch.Tensor]:
    shapes = {
        "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (512, HIDDEN), "self_attn.v_proj": (512, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER),
    }  # fmt: skip
    chance = torch.Generator().manual_seed(number)
    return {
        f"model.layers.{number}.{name}.weight": torch.randn(shape, generator=chance).to(torch.bfloat16)
        for name, shape in shapes.items()
    }


def models(folder: Path, gigabytes: float) -> tuple[Path, Path, int]:
    """A model, its sibling, and the bytes of the tensors that differ."""
    weights = {"model.embed_tokens.weight": torch.randn(8192, HIDDEN).to(torch.bfloat16)}
    layers = max(SHARE, round(gigabytes * 1e9 / 91e6))
    for number in range(layers):
        weights |= layer(number)
    trained = [f"model.layers.{number}." for number in range(layers - layers // SHARE, layers)]
    changed = {name: weight for name, weight in weights.items() if name.startswith(tuple(trained))}
    tuned = {name: weight + torch.tensor(0.01, dtype=torch.bfloat16) for name, weight in changed.items()}
    made = []
    for name, own in (("base", weights), ("tuned", weights | tuned)):
        target = folder / name
        target.mkdir()
        save_file(own, target / "model.safetensors", {"format": "pt"})
        (target / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": HIDDEN}))
        (target / "tokenizer.json").write_text('{"model": {"vocab": {}, "merges": []}}')
        made.append(target)
    return made[0], made[1], sum(weight.nbytes for weight in changed.values())


def hashed_copy(source: Path, into: Path) -> None:
    """Read once, hashed and written as it passes."""
    into.mkdir()
    for file in source.iterdir():
        digest = hashlib.sha256()
        with file.open("rb") as read, (into / file.name).open("wb") as written:
            while piece := read.read(4 << 20):
                digest.update(piece)
                written.write(piece)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def seconds(act: Callable[[], object]) -> float:
    """Of one run, after everything else has reached the disk."""
    os.sync()
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def after(source: Path, room: Path, act: Callable[[], object]) -> float:
    """Seconds of `act` after a copy of `source` that is thrown away: all find memory for pages that is in use already.

    The first to use more memory than there was in use pays for it, on a virtual machine twice what a copy costs.
    """
    shutil.copytree(source, room / "thrown away")
    shutil.rmtree(room / "thrown away")
    return seconds(act)


def command(*words: object, cwd: Path = ROOT, **more: str) -> None:
    subprocess.run([str(word) for word in words], cwd=cwd, env=os.environ | more, check=True, capture_output=True)


def strata(state: Path, *words: object) -> None:
    """Our command line."""
    command(sys.executable, "-m", "pipelines.cli", "models", *words, STRATA_CLUSTER__STATE_DIR=str(state))


def copies_of_files(base: Path, room: Path) -> dict[str, float]:
    took = {
        "copy": after(base, room, lambda: shutil.copytree(base, room / "copy")),
        "copy with SHA-256": after(base, room, lambda: hashed_copy(base, room / "hashed")),
        "hash": seconds(lambda: hashed(base)),
        "copy, disk to disk": cold(base, lambda: shutil.copytree(base, room / "cold"), room / "cold"),
        "copy with SHA-256, disk to disk": cold(base, lambda: hashed_copy(base, room / "both"), room / "both"),
    }
    for folder in room.iterdir():
        shutil.rmtree(folder)
    return took


def hashed(source: Path) -> None:
    """SHA-256 of the files on all cores, and nothing else: no fetch that is checked can be faster than this."""

    def part(at: int) -> None:
        hashlib.sha256(os.pread(descriptor, 4 << 20, at)).digest()

    with (source / "model.safetensors").open("rb") as opened, ThreadPoolExecutor(os.cpu_count()) as pool:
        descriptor = opened.fileno()
        for _ in pool.map(part, range(0, os.fstat(descriptor).st_size, 4 << 20)):
            pass


def cold(source: Path, act: Callable[[], object], made: Path) -> float:
    """Seconds until what `act` makes of `source`, which the page cache does not hold, is on the disk."""
    os.sync()
    forget(source)
    begun = time.perf_counter()
    act()
    for path in made.rglob("*"):
        if path.is_file():
            with path.open("rb") as opened:
                os.fsync(opened.fileno())
    return time.perf_counter() - begun


def forget(folder: Path) -> None:
    """Have the page cache forget the files of a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ours(base: Path, tuned: Path, room: Path) -> tuple[dict[str, float], dict[str, int]]:
    """One round in this process."""
    registry = Registry(room / "registry")
    took = {"push": after(base, room, lambda: registry.push("chat", base, author="bench"))}
    before = size(room / "registry")
    took["sibling"] = after(base, room, lambda: registry.push("chat", tuned, author="bench"))
    stored = size(room / "registry") - before
    took["checkout"] = after(base, room, lambda: registry.checkout("chat", "v1", room / "out"))
    shutil.rmtree(room / "out")
    pin, copies = registry.pin("chat", "v2"), Copies(room / "cache", registry.store)
    took["fetch"] = after(base, room, lambda: copies.ensure(pin.manifest, "chat@v2"))
    took["fetch again"] = seconds(lambda: copies.ensure(pin.manifest, "chat@v2"))
    far = Copies(room / "far", registry.store)
    took["fetch, disk to disk"] = cold(
        room / "registry", lambda: far.ensure(pin.manifest, "chat@v2"), far.path(pin.manifest)
    )
    cold_registry = Registry(room / "cold")
    took["push, disk to disk"] = cold(
        base, lambda: cold_registry.push("chat", base, author="bench"), room / "cold" / "content"
    )
    took["diff"] = seconds(lambda: registry.diff("chat", "v1", "v2"))
    return took, {"stored": stored, "pushed": before}


def ours_as_commands(base: Path, tuned: Path, room: Path) -> dict[str, float]:
    state = room / "state"
    return {
        "push": seconds(lambda: strata(state, "push", base, "--name", "chat")),
        "sibling": seconds(lambda: strata(state, "push", tuned, "--name", "chat")),
        "checkout": seconds(lambda: strata(state, "checkout", "chat@v1", room / "out")),
    }


def dvc(python: Path, base: Path, tuned: Path, room: Path) -> tuple[dict[str, float], dict[str, int]]:
    """The same with DVC: its cache in the place of our store."""
    work, program = room / "work", python.parent / "dvc"
    work.mkdir(parents=True)

    def run(*words: object) -> None:
        command(program, *words, cwd=work, DVC_NO_ANALYTICS="1")

    def replace(folder: Path) -> None:
        shutil.rmtree(work / "model", ignore_errors=True)
        shutil.copytree(folder, work / "model")

    run("init", "--no-scm", "-q")
    replace(base)
    took = {"push": seconds(lambda: run("add", "-q", "model"))}
    pointer = (work / "model.dvc").read_text()
    before = size(work / ".dvc" / "cache")
    replace(tuned)
    took["sibling"] = seconds(lambda: run("add", "-q", "model"))
    stored = size(work / ".dvc" / "cache") - before
    shutil.rmtree(work / "model")
    (work / "model.dvc").write_text(pointer)
    took["checkout"] = seconds(lambda: run("checkout", "-q"))
    return took, {"stored": stored, "pushed": before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--folder", type=Path, help="on which disk; default: the system's for temporary files")
    options = parser.parse_args()
    load = quiet()
    peer = None if options.no_peer else environments.install("dvc")
    found: dict[str, dict[str, list[float]]] = {}
    sizes: dict[str, dict[str, int]] = {}

    def note(way: str, took: dict[str, float]) -> None:
        for act, value in took.items():
            found.setdefault(way, {}).setdefault(act, []).append(value)

    with tempfile.TemporaryDirectory(dir=options.folder, prefix="strata-registry") as folder:
        base, tuned, changed = models(Path(folder), options.gigabytes)
        for turn in range(options.rounds + 1):  # the first is not counted: it finds nothing in the page cache
            room = Path(folder) / f"round{turn}"
            room.mkdir()
            copied = copies_of_files(base, room)
            mine, sizes["strata"] = ours(base, tuned, room)
            shutil.rmtree(room)
            room.mkdir()
            commands = ours_as_commands(base, tuned, room)
            shutil.rmtree(room)
            room.mkdir()
            theirs = None
            if peer is not None:
                theirs, sizes["dvc"] = dvc(peer, base, tuned, room)
            shutil.rmtree(room)
            if turn:
                note("files", copied)
                note("strata", mine)
                note("strata, command", commands)
                if theirs is not None:
                    note("dvc, command", theirs)
        whole = size(base)
    middle = {way: {act: statistics.median(each) for act, each in acts.items()} for way, acts in found.items()}

    def ratio(act: str, to: str) -> float:
        """Of each round's, as the machine may be faster in one than in another; the median."""
        pairs = zip(found["strata"][act], found["files"][to], strict=True)
        return statistics.median(mine / other for mine, other in pairs)

    ratios = {
        "push over copy with SHA-256": ratio("push", "copy with SHA-256"),
        "checkout over copy": ratio("checkout", "copy"),
        "fetch over copy": ratio("fetch", "copy"),
        "push over copy with SHA-256, disk to disk": ratio("push, disk to disk", "copy with SHA-256, disk to disk"),
        "fetch over copy, disk to disk": ratio("fetch, disk to disk", "copy, disk to disk"),
        "stored over changed": sizes["strata"]["stored"] / changed,
    }
    wanted = dict(zip(ratios, (PUSHED, FETCHED, FETCHED, PUSHED, FETCHED, STORED), strict=True))
    for way, acts in middle.items():
        print(f"{way:20}", "  ".join(f"{act} {value:.2f} s" for act, value in acts.items()))
    for way, each in sizes.items():
        print(f"{way:20} stored {each['stored'] / 1e6:.1f} MB of a sibling with {changed / 1e6:.1f} MB changed")
    for name, value in ratios.items():
        print(f"{name}: {value:.3f}, wanted {wanted[name]}{'' if value <= wanted[name] else ' (!)'}")
    result = {
        "question": __doc__.splitlines()[0],
        "bytes": {"model": whole, "changed": changed, **sizes},
        "seconds": found,
        "medians": middle,
        "ratios": ratios,
        "wanted": wanted,
        "peer": "DVC 3.67.1" if peer else None,
    }
    print(f"kept in {write('registry', result, load_before=load)}")


if __name__ == "__main__":
    main()
