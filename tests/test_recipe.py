"""Recipes: what they change in params.yaml and what they leave; that each fits its model."""

import shutil
from pathlib import Path

import pytest
import yaml

from adapt import launch, params, recipe
from adapt.attention.layout import layout_of
from adapt.data.pictures import open_picture
from adapt.models.load import load_model, save
from adapt.models.prompts import encode, prompt_version
from adapt.models.roles import role_of_parameters
from adapt.pairs.table import Origin, Pair, PairView, write_pairs
from adapt.preference.checks import check
from adapt.preference.fit import fit
from tests.preference.test_families import rows
from tests.support.closure import ROOT
from tests.support.families import built

NAMES = sorted(file.stem for file in (ROOT / "recipes").glob("*.yaml"))
PUBLISHED = {
    "llava-1.5-7b": "llava-hf/llava-1.5-7b-hf",
    "qwen2.5-vl-3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen2.5-vl-7b": "Qwen/Qwen2.5-VL-7B-Instruct",
    "smolvlm-500m": "HuggingFaceTB/SmolVLM-500M-Instruct",
    "internvl3-2b": "OpenGVLab/InternVL3-2B-hf",
}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A workspace with params.yaml and the recipes, the current folder."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["recipe", *words])
    recipe.main()


def refused(monkeypatch, capsys, *words: str) -> str:
    """The one line of a command that must refuse, having changed nothing."""
    before = Path("params.yaml").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *words)
    out, err = capsys.readouterr()
    assert (stopped.value.code, out, err.count("\n")) == (2, "", 1)
    assert Path("params.yaml").read_bytes() == before
    assert sorted(path.name for path in Path().iterdir()) == ["params.yaml", "recipes"]
    return err.removeprefix("adapt recipe: ").replace(f"{Path.cwd()}/", "").strip()


# ---- the shipped recipes -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_applies_and_every_stage_takes_it(name, root, monkeypatch, capsys):
    run(monkeypatch, name)
    content = params.read(root / "params.yaml")
    configs = launch.configs(content)
    assert configs["base"].source == PUBLISHED[name]
    anchor, steer = configs["anchor"], configs["steer"]
    assert (anchor.anchor_tokens, steer.alpha, steer.tau) == (5, 0.5, 0.6)  # the paper's
    assert configs["train"].beta == 0.1
    capsys.readouterr()
    run(monkeypatch, name)
    assert "nothing to do" in capsys.readouterr().out


def test_there_is_a_recipe_for_each_published_checkpoint():
    assert set(NAMES) == set(PUBLISHED)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_its_source_behind_it(name):
    lines = (ROOT / "recipes" / f"{name}.yaml").read_text().splitlines()
    values = [line for line in lines if ": " in line and not line.startswith("#")]
    sources = ("[paper]", "[release]", "[peer]", "[ours]")
    bare = [line for line in values if not any(source in line for source in sources)]
    assert [line.split(":")[0].strip() for line in bare] == ["source"]


@pytest.mark.parametrize("name", NAMES)
def test_all_comments_and_the_order_stay(name, root, monkeypatch):
    def skeleton() -> list[str]:
        """Each line without its value: key and comment."""
        lines = (root / "params.yaml").read_text().splitlines()
        return [f"{line.partition(':')[0]}{line.partition('#')[2]}" for line in lines]

    before = skeleton()
    run(monkeypatch, name)
    assert skeleton() == before


def test_a_dry_run_shows_what_the_real_one_does_and_writes_nothing(root, monkeypatch, capsys):
    before = (root / "params.yaml").read_bytes()
    run(monkeypatch, "llava-1.5-7b", "--dry-run")
    head, *shown = capsys.readouterr().out.splitlines()
    assert (root / "params.yaml").read_bytes() == before
    run(monkeypatch, "llava-1.5-7b")
    done, *lines = capsys.readouterr().out.splitlines()
    assert lines == shown and done == head.replace("would change", "changed")
    assert any(line.split() == ["train.beta", "0.5", "->", "0.1"] for line in lines)
    old, new = yaml.safe_load(before), params.read(root / "params.yaml")
    assert len(lines) == sum(params.flat(new)[key] != v for key, v in params.flat(old).items())


def test_without_a_name_they_are_listed(root, monkeypatch, capsys):
    run(monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(len(line.split()) > 5 and "#" not in line for line in lines)


# ---- each against its family's tiny twin -------------------------------------------------------

TWINS = {
    "llava-1.5-7b": "llava",
    "qwen2.5-vl-3b": "qwen2_5_vl",
    "qwen2.5-vl-7b": "qwen2_5_vl",
    "smolvlm-500m": "smolvlm",
    "internvl3-2b": "internvl",
}
SMALL = {"batch_pairs": 2, "accumulation": 1, "steps": 2, "checkpoint_every": 2}


def write_pair_file(family: str, path: Path) -> None:
    """Three pairs of the twin's, with pictures of two sizes."""
    model, processor = built(family)
    made = rows(family)
    prompts = [[open_picture(content) for content in row["images"]] for row in made]
    layout = layout_of(model, encode(processor, prompts, [row["question"] for row in made]))
    views = [tuple(map(PairView.of, layout.of(i))) for i in range(len(made))]
    scores = {"kind": "describe", "chosen_score": 1.0, "rejected_score": 0.0}
    tuples = [{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()} for row in made]
    pairs = [Pair(**row, **scores, views=own) for row, own in zip(tuples, views, strict=True)]
    origin = Origin(prompt=prompt_version(processor), model_type=model.config.model_type)
    write_pairs(path, pairs, origin)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_its_familys_tiny_twin(name, root, monkeypatch, capsys):
    """Everything but the sizes is the recipe's."""
    monkeypatch.setenv("ADAPT_CPUS", "1")  # two threads on a busy core wait for each other
    save(*built(TWINS[name]), root / "twin")
    write_pair_file(TWINS[name], root / "pairs.parquet")
    run(monkeypatch, name)
    content = params.read(root / "params.yaml")
    content["train"] |= SMALL
    content["base"]["source"], content["device"] = str(root / "twin"), "cpu"
    configs = launch.configs(content)
    check(configs["train"], root / "twin", root / "pairs.parquet")
    metrics = fit(
        configs["train"], root / "twin", root / "pairs.parquet", root / "out", root, lambda *_: None
    )
    assert 0 < metrics["loss"] < 1e3
    assert {"vag/loss", "sft/loss", "attn/loss", "rewards/margins"} <= metrics.keys()
    tuned, base = load_model(root / "out" / "model"), load_model(root / "twin")
    assert type(tuned) is type(base)
    changed = [
        key
        for (key, now), before in zip(tuned.named_parameters(), base.parameters(), strict=True)
        if not now.equal(before)
    ]
    roles = role_of_parameters(tuned)
    assert changed and "tower" not in {roles[key] for key in changed}


# ---- whatever form the file has ----------------------------------------------------------------


def test_values_of_every_form_are_replaced_in_place(root, monkeypatch):
    """A list in lines, quotes, line ends of Windows, a byte order mark, no newline at the end."""
    text = (
        (root / "params.yaml").read_text().replace("kinds: [describe] ", "kinds:\n    - exists\n")
    )
    text = text.replace("source: scratch", "source: 'scratch'").replace("\n", "\r\n").rstrip()
    (root / "params.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    run(monkeypatch, "smolvlm-500m")
    after = (root / "params.yaml").read_bytes()
    assert after.startswith(b"\xef\xbb\xbf# yaml") and not after.endswith(b"\n")
    assert after.count(b"\r\n") == after.count(b"\n") == text.count("\n")
    content = params.read(root / "params.yaml")
    assert content["pairs"]["kinds"] == ["describe"]
    assert content["base"]["source"] == PUBLISHED["smolvlm-500m"]


def test_the_file_keeps_its_mode_and_a_link_stays_a_link(root, monkeypatch):
    (root / "elsewhere").mkdir()
    real = (root / "params.yaml").rename(root / "elsewhere" / "mine.yaml")
    real.chmod(0o640)
    (root / "params.yaml").symlink_to(real)
    run(monkeypatch, "smolvlm-500m")
    assert (root / "params.yaml").is_symlink() and real.stat().st_mode & 0o777 == 0o640
    assert params.read(real)["base"]["source"] == PUBLISHED["smolvlm-500m"]


@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        (
            "train: {stepz: 3}",
            "recipes/own.yaml: unknown key train.stepz; did you mean",
        ),
        ("trian: {steps: 3}", "recipes/own.yaml: unknown key trian; did you mean train?"),
        ("train: 3", "recipes/own.yaml: train: expected a section with keys"),
        ("seed: {a: 3}", "recipes/own.yaml: seed: expected a value, not a section"),
        ("train: {steps: 0}", "params.yaml: train.steps: must be at least 1, got 0"),
        ("train: {steps: 5e1}", "params.yaml: train.steps: expected a whole number"),
        ("- a", "recipes/own.yaml: expected sections with keys"),
        ("", "recipes/own.yaml: expected sections with keys"),
        ("a: [", "recipes/own.yaml: not valid YAML (line 1):"),
    ],
)
def test_a_recipe_of_ones_own_that_does_not_fit(overlay, said, root, monkeypatch, capsys):
    (root / "recipes" / "own.yaml").write_text(overlay)
    assert refused(monkeypatch, capsys, "own").startswith(said)


def test_what_cannot_be_replaced_in_place_is_left_alone(root, monkeypatch, capsys):
    text = (root / "params.yaml").read_text()
    text = text.replace("max_new_tokens: 64 ", "max_new_tokens: &n 64 ")
    (root / "params.yaml").write_text(text.replace("  steps: 200", "  steps: *n"))
    line = refused(monkeypatch, capsys, "llava-1.5-7b")
    assert line.startswith("params.yaml: a value is written in a way that cannot be replaced")


def test_an_unknown_name_and_a_folder_without_recipes(root, monkeypatch, capsys):
    line = refused(monkeypatch, capsys, "llava-1.5")
    assert line == "recipes: no recipe llava-1.5; did you mean llava-1.5-7b?"
    shutil.rmtree(root / "recipes")
    (root / "recipes").mkdir()
    assert "no recipes here; run from the project's root" in refused(monkeypatch, capsys, "llava")
