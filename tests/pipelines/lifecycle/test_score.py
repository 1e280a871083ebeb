from pipelines.lifecycle.data.example import Example
from pipelines.lifecycle.evaluate import evaluate, summary
from pipelines.lifecycle.score import score


def example(task, answer):
    return Example(task, f"{task}:{answer}", (("user", "?"), ("assistant", answer)))


EXAMPLES = [example("sums", "1"), example("sums", "2"), example("dates", "x"), example("sums", "3")]


def test_only_the_exact_text_counts():
    sums, dates, together = score(EXAMPLES, ["1", " 2\n", "X", "33"])
    assert (sums.task, sums.right, sums.asked) == ("sums", 2, 3)
    assert (dates.right, dates.percent) == (0, 0.0)
    assert dates.wrong == (("?", "x", "X"),)
    assert (together.right, together.asked, together.percent) == (2, 4, 50.0)


def test_nothing_asked_is_nothing_right():
    assert score([], [])[-1].percent == 0.0


def test_a_model_is_asked_in_the_chat_form(tmp_path):
    seen = []

    def answer(model, prompts):
        seen.append((model, list(prompts)))
        return ["1", "2", "x", "3"]

    scores = evaluate(tmp_path, EXAMPLES, answer)
    assert seen == [(tmp_path, ["<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n"] * 4)]
    assert summary(scores, "strata")["tasks"]["all"] == {"right": 4, "asked": 4, "percent": 100.0}
