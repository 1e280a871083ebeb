"""The pipeline that the README shows is one."""

import re
import textwrap

from pipelines.lifecycle.steps.canary import released
from pipelines.settings import HOME, load


def test_the_pipeline_of_the_readme_is_taken(tmp_path):
    text = (HOME / "README.md").read_text()
    section = text.partition("## Pipelines\n")[2].partition("\n## ")[0]
    (shown,) = re.findall(r"((?:^    .*\n)+)", section, re.MULTILINE)
    file = tmp_path / "strata.yaml"
    file.write_text(textwrap.dedent(shown))
    settings = load(file, {}).settings
    (pipeline,) = settings.pipelines
    assert pipeline.steps == ("train", "evaluate", "push", "merge_request", "canary", "live")
    assert released(settings, pipeline.model)[:2] == ("chat", "prod")
