"""What stays in MLflow for its pages: the experiment's view, descriptions of model and versions."""

from pathlib import Path

import pytest

from adapt.registry import describing, registry, settling
from adapt.registry.ledger import Entry
from adapt.tracking import experiment, presentation
from adapt.tracking.store import Store
from tests.support import tracked, versions

FIGURES = {"Hal %": (34.2, 14.4), "late/early": (0.653, 0.734)}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    return tracked.workspace(tmp_path, monkeypatch)


def test_an_experiment_has_its_view_and_keeps_what_somebody_wrote(store: Store) -> None:
    experiment.describe(store)
    tags = store.client.get_experiment(store.experiment_id).tags
    assert "mlflow.sharedViewState.retrainings" in tags
    assert tags[experiment.KIND] == "custom_model_development"
    store.client.set_experiment_tag(store.experiment_id, presentation.NOTE, "ours")
    store.client.delete_experiment_tag(store.experiment_id, experiment.KIND)
    experiment.describe(store)
    tags = store.client.get_experiment(store.experiment_id).tags
    assert tags[presentation.NOTE] == "ours" and experiment.KIND in tags


def test_a_persons_decision_is_shown_with_the_gates_figures() -> None:
    gate = Entry(what="waiting", of="2", against="1", figures=FIGURES, data="28cc39.dir", number=4)
    other = Entry(what="refused", of="3", figures={"Hal %": (1.0, 2.0)}, data="x", number=5)
    person = Entry(what="approved", of="2", against="1", to="2", who="ann", number=6)
    tags = {"mlflow.source.git.commit": "d38aa354c720", "adapt.git_dirty": "true"}
    text = describing.version("adapt", "2", tags, person, [gate, other, person])
    assert text.startswith("Approved, and champion since (by ann).")
    assert "| Hal % | 34.2 | 14.4 | -19.8 |" in text and "| late/early | 0.653 |" in text
    assert "`28cc39.dir`" in text and "with uncommitted changes" in text
    assert "Steered decoding" not in text
    steered = tags | {describing.STEERING: "alpha 1.8, tau 0.9"}
    text = describing.version("adapt", "2", steered, person, [gate, other, person])
    assert "Stage answer steers it with `alpha 1.8, tau 0.9`" in text


def test_every_decision_writes_the_description_anew(store: Store) -> None:
    registry._make(store.client, "adapt")
    model = store.client.get_registered_model("adapt")
    assert model.description == presentation.model_note("adapt")
    (version,) = versions.made(store, "first.dir")
    told = {"refused": "Not promoted (against the base, by ann, on 20", "rejected": "Rejected (by"}
    for what, begins in told.items():
        known = {"of": version, "weights": "first.dir", "who": "ann", "reasons": ("failed: Hal",)}
        tail = settling.settled(store, begin=True).state.tail
        settling.decide(store, Entry(what=what, figures=FIGURES, seen=tail, **known))
        text = store.client.get_model_version("adapt", version).description
        assert text.startswith(begins) and "34.2" in text and "failed: Hal" in text
    assert registry.tags(store, version)["adapt.decision"] == "rejected"
