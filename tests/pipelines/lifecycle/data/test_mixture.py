import hashlib
import os
import subprocess
import sys
from collections import Counter
from itertools import islice

from pipelines.lifecycle.data.example import held_out
from pipelines.lifecycle.data.mixture import NAMES, TASKS, held_out_set, stream

DIGEST = "import hashlib, itertools; from pipelines.lifecycle.data.mixture import stream; print(hashlib.sha256(repr(\
[(e.key, e.turns, e.tools) for e in itertools.islice(stream(11), 500)]).encode()).hexdigest())"


def asked(example):
    """Everything that the model reads before its last answer."""
    return repr((example.turns[:-1], example.tools)).casefold()


def test_a_seed_means_the_same_stream():
    assert list(islice(stream(5), 300)) == list(islice(stream(5), 300))
    assert list(islice(stream(5), 300)) != list(islice(stream(6), 300))


def test_the_stream_depends_on_no_hash_seed_and_no_locale():
    here = hashlib.sha256(repr([(e.key, e.turns, e.tools) for e in islice(stream(11), 500)]).encode()).hexdigest()
    for hash_seed, locale in (("1", "C"), ("77", "C.UTF-8")):
        there = subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "LC_ALL": locale},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == here


def test_every_task_comes_up_as_often_as_it_should():
    counts = Counter(example.task for example in islice(stream(2), 5000))
    for name, share, _ in TASKS:
        assert abs(counts[name] / 50 - share) < 3, name
    assert sum(share for _, share, _ in TASKS) == 100


def test_training_never_sees_a_held_out_instance():
    training = list(islice(stream(7), 20_000))
    scored = held_out_set(150)
    assert not any(held_out(key) for example in training for key in (example.key, *example.also))
    assert all(held_out(example.key) for example in scored)
    assert not {example.key for example in training} & {example.key for example in scored}
    assert not {asked(example) for example in training} & {asked(example) for example in scored}


def test_the_held_out_set_has_enough_of_every_task_and_no_question_twice():
    scored = held_out_set(150)
    assert Counter(example.task for example in scored) == dict.fromkeys(NAMES, 150)
    assert len({(example.task, asked(example)) for example in scored}) == len(scored)


def test_the_held_out_set_is_in_both_languages():
    for name in NAMES:
        languages = {repr(e.turns[-2]).isascii() for e in held_out_set(60) if e.task == name}
        assert languages == {True, False}, name
