"""NLTK's data for the tests that read text: the tagger's weights and WordNet, where they are beside
the repository.
"""

import pytest

from tests.support import oracle


@pytest.fixture
def nltk_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """NLTK looks into the shared folder alone; skips the test where it is missing."""
    folder = oracle.FOLDER.parent / "nltk_data"
    if not folder.is_dir():
        pytest.skip(f"NLTK's data {folder} are not on this machine")
    monkeypatch.setattr("nltk.data.path", [str(folder)])
