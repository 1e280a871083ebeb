import pytest

from pipelines.lifecycle.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    """A small tokenizer of the starter model's kind."""
    return train_tokenizer(1200, seed=1, examples=2000)
