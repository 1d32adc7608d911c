"""`dvc plots show`: DVC's page with a template of ours, which needs no network."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import limits, workspace

PLOTS = """
plots:
  - training:
      x: step
      y: {history.csv: [loss, "<b>margin"]}
  - warning:
      template: bar_horizontal
      x: auroc
      y: {scores.csv: score}
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that DVC writes for two plots."""
    root = tmp_path_factory.mktemp("dvc")
    (root / "dvc.yaml").write_text(PLOTS)
    (root / "history.csv").write_text("step,loss,<b>margin\n1,0.9,0.1\n2,0.5,\n3,0.4,0.7\n")
    (root / "scores.csv").write_text("score,auroc\nmass,0.9\n<i>focus,0.6\n")
    workspace.repository(root)
    dvc(root, "init", "--quiet")
    for name in ("config", "plots.html"):
        shutil.copy2(workspace.ROOT / ".dvc" / name, root / ".dvc")
    dvc(root, "plots", "show", "--out", "page")
    return root / "page" / "index.html"


def dvc(root: Path, *words: str) -> None:
    command = [sys.executable, "-m", "dvc", *words]
    subprocess.run(
        command, cwd=root, check=True, env=workspace.environment(root), timeout=limits.COMMAND_S
    )


def test_the_page_loads_nothing(shown: Path) -> None:
    text = shown.read_text(encoding="utf-8")
    assert "vegaEmbed('#" in text and "function vegaEmbed(" in text
    for word in ("src=", "<link", "@import", "cdn"):
        assert word not in text, word
    allowed = ("http://www.w3.org/2000/svg", "https://vega.github.io/schema/")  # names, not loaded
    for part in text.split("http")[1:]:
        assert f"http{part}".startswith(allowed), part[:80]


def test_a_browser_draws_lines_and_bars(shown: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium here to look at the page with")
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync --dump-dom"
    profile = f"--user-data-dir={tmp_path}"
    command = [chromium, *flags.split(), profile, "--timeout=20000", shown.as_uri()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=limits.COMMAND_S, check=True
    )
    body = done.stdout.split("<body>")[1]
    assert body.count('class="line" stroke') == 4  # two curves, and each once in the legend
    assert (
        body.count("<rect") == 2
        and "&lt;i&gt;focus" in body
        and "<i>focus" not in body.split("</script>")[-1]
    )
    assert "margin: 0.7 at 3" in body
