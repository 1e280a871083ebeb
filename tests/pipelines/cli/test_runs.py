"""How a run is shown."""

import pytest

from pipelines.cli.runs import step_row
from pipelines.lifecycle.run import Step


@pytest.mark.parametrize("said", ["failed", "cancelled"])
def test_a_step_that_was_cut_says_how_and_counts_no_further(said):
    step = Step("train", said, began=100.0, ended=109.5, attempts=1, note="step 1 of 3")
    assert step_row(step, 500.0) == ("train", said, "9.5", "1", "step 1 of 3")


def test_a_step_that_runs_says_how_far_it_is():
    assert step_row(Step("train", "running", began=100.0, share=0.5), 109.5)[:3] == ("train", "running 50%", "9.5")
