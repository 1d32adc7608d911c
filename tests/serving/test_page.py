"""The page in headless Chromium, before the real server: ask, see the risks, click a word."""

import pytest

from tests.serving.test_on_ray import started
from tests.support import browser, doors, limits
from tests.support.closure import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser.CHROMIUM, reason="needs Chromium on PATH"),
]


def test_a_picture_is_asked_about_and_a_word_is_looked_at(tmp_path):
    version = doors.version(tmp_path / "version")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    with started(tmp_path, "--model", str(version)) as server:
        address = f"http://127.0.0.1:{server.port}/"
        with browser.opened(address, tmp_path / "profile") as page:
            page.choose("#file", ROOT / "docs" / "scene.png")
            limits.until(
                lambda: page.value("document.getElementById('shown').hidden") is False,
                "the picture",
                limits.WHOLE_TEST_S,
            )
            page.value("document.getElementById('ask').click()")
            limits.until(
                lambda: page.value("document.querySelectorAll('#answer .word').length") > 0,
                "words",
                limits.WHOLE_TEST_S,
            )
            limits.until(
                lambda: "Version" in page.value("document.getElementById('result').innerText"),
                "the end of the answer",
                limits.WHOLE_TEST_S,
            )
            page.value("document.querySelector('#answer .word').click()")
            shown = page.value("document.body.innerText")
            assert "Where the model looked" in shown
            assert page.complaints == []
            # A picture that is none is refused in words, on the page.
            page.choose("#file", ROOT / "README.md")
            limits.until(
                lambda: "README.md" in page.value("document.getElementById('hint').innerText"),
                "the other file",
                limits.WHOLE_TEST_S,
            )
            page.value("document.getElementById('ask').click()")
            limits.until(
                lambda: bool(page.value("document.getElementById('error').innerText")),
                "a refusal",
                limits.WHOLE_TEST_S,
            )
            assert page.picture()[:4] == b"\x89PNG"
