"""NLTK's data for the tests that read text, from beside the repository or from NLTK_DATA."""

import pytest

from tests.support import oracle


@pytest.fixture
def nltk_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """NLTK finds its data; skips the test where they are nowhere."""
    oracle.use_nltk_data(monkeypatch)
