"""How a run is shown."""

import pytest

from pipelines.cli.runs import step_row
from pipelines.lifecycle.run import Step
from tests.pipelines.cli.conftest import strata


@pytest.mark.parametrize("said", ["failed", "cancelled"])
def test_a_step_that_was_cut_says_how_and_counts_no_further(said):
    step = Step("train", said, began=100.0, ended=109.5, attempts=1, note="step 1 of 3")
    assert step_row(step, 500.0) == ("train", said, "9.5", "1", "step 1 of 3")


def test_a_step_that_runs_says_how_far_it_is():
    assert step_row(Step("train", "running", began=100.0, share=0.5), 109.5)[:3] == ("train", "running 50%", "9.5")


@pytest.mark.usefixtures("home")
def test_what_is_not_there_says_what_is(monkeypatch, capsys):
    for words, said in (
        (("show", "x-1"), "no run x-1; there is none yet"),
        (("start", "tune"), "no pipeline tune; there is none: declare one under `pipelines` in the settings"),
        (("unwatch", "tune"), "no watched pipeline tune; there is none yet"),
    ):
        assert strata(monkeypatch, "runs", *words) == 1
        assert said in capsys.readouterr().err
