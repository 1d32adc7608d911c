"""What holds for every test: it leaves the number of torch's threads as it was.

Sums of two threads differ from those of one in their last bits, and so a test that changes the
number fails others, which come after it in the same process.
"""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def threads_stay() -> Iterator[None]:
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch and torch.get_num_threads() != before:
        after = torch.get_num_threads()
        torch.set_num_threads(before)
        pytest.fail(f"torch had {before} threads before this test, and has {after} after it")
