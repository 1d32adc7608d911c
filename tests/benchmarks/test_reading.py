"""Each benchmark's published form becomes its questions, with their pictures and their truth."""

import json
from pathlib import Path

import pytest

from adapt.benchmarks import registry, suite
from adapt.benchmarks.suite import drawn
from adapt.data.schema import open_images
from adapt.params import InputError
from tests.support import benchmark_folders as made
from tests.support.benchmark_folders import MAKERS, SIZE, benchmark
from tests.support.oracle import FOLDER

SHORT = suite.SHORT


def read(name: str, root: Path, **options):
    path = MAKERS[name](root)
    if name == "objhal":
        options = {"truth": str(root / "objects.json"), **options}
    return registry.read(benchmark(name, path, **options))


@pytest.mark.parametrize("name", MAKERS)
def test_every_question_has_its_picture(name, tmp_path):
    read_ = read(name, tmp_path)
    assert read_.label == name and read_.questions
    for question in read_.questions:
        (picture,) = open_images(question)
        assert picture.mode == "RGB" and (SIZE, SIZE) in (picture.size, (SIZE, SIZE))
        assert read_.max_new_tokens[question.kind] >= suite.YES_OR_NO
    counted = {one.image_id for one in read_.questions}
    assert read_.fingerprint["questions"] == len(read_.questions)
    assert read_.fingerprint["pictures"] == len(counted)
    assert all(len(digits) == 64 for digits in read_.fingerprint["files"].values())


def test_ambers_questions(tmp_path):
    one, two, three, four, five = read("amber", tmp_path).questions
    assert (one.id, one.kind, one.question) == ("1", "describe", "Describe this image.")
    assert [thing.name for thing in two.objects] == ["house", "tree"] and two.absent == ("car",)
    assert (three.kind, three.question, three.answer) == (
        "exists",
        "Is there a tree?" + SHORT,
        "no",
    )
    assert (four.answer, four.objects) == ("yes", None)
    assert five.image_id == "AMBER_2.jpg" and five.images[0] == made.picture(1)
    only = registry.read(benchmark("amber", tmp_path, part="generative"))
    assert [question.id for question in only.questions] == ["1", "2"]
    bare = registry.read(benchmark("amber", tmp_path / "data", part="discriminative", suffix=""))
    assert bare.questions[0].question == "Is there a tree?"


def test_ambers_folder_without_the_file_of_all_queries(tmp_path):
    made.amber(tmp_path)
    (tmp_path / "data" / "query" / "query_all.json").unlink()
    assert len(registry.read(benchmark("amber", tmp_path)).questions) == 2


def test_ambers_own_annotations_with_a_few_pictures(tmp_path):
    folder = FOLDER.parent / "amber"
    if not folder.is_dir():
        pytest.skip(f"AMBER's annotations {folder} are not on this machine")
    made.draw(tmp_path / "image", ("AMBER_1.jpg", "AMBER_7.jpg"))
    where = {"images": str(tmp_path / "image")}
    with pytest.raises(
        InputError, match=r"missing pictures: 1002, of 15184 questions; not in .*image \(AMBER_10"
    ):
        registry.read(benchmark("amber", folder, **where))
    partial = registry.read(benchmark("amber", folder, partial=True, **where))
    assert {one.image_id for one in partial.questions} == {"AMBER_1.jpg", "AMBER_7.jpg"}
    assert partial.notes[0].startswith("partial, missing pictures: 1002, of")
    assert [one.id for one in partial.questions if one.kind == "describe"] == ["1", "7"]


def test_popes_questions_and_its_three_files(tmp_path):
    path = made.pope(tmp_path)
    asked = registry.read(benchmark("pope", path, label="random"))
    assert [one.id for one in asked.questions] == list("123456")
    assert asked.questions[0].question == "Is there a snowboard in the image?" + SHORT
    assert asked.questions[0].answer == "yes" and asked.label == "random"
    with pytest.raises(InputError, match=r"is a folder; name one file.*coco_pope_random\.json"):
        registry.read(benchmark("pope", tmp_path))


def test_pictures_that_are_missing_are_counted_in_one_line(tmp_path):
    path = made.pope(tmp_path)
    (tmp_path / "val2014" / "COCO_val2014_000000000007.jpg").unlink()
    with pytest.raises(InputError) as problem:
        registry.read(benchmark("pope", path))
    text = str(problem.value)
    assert "missing pictures: 1, of 3 questions; not in" in text and "\n" not in text
    assert "COCO_val2014_000000000007.jpg" in text and str(tmp_path / "val2014") in text
    assert len(registry.read(benchmark("pope", path, partial=True)).questions) == 3
    with pytest.raises(InputError, match=r"images .*nowhere: is no folder"):
        registry.read(benchmark("pope", path, images=str(tmp_path / "nowhere")))


def test_cocos_pictures_in_the_order_of_their_ids(tmp_path):
    asked = read("chair", tmp_path)
    assert [one.id for one in asked.questions] == ["7", "9", "42"]
    assert {one.question for one in asked.questions} == {"Please describe this image in detail."}
    assert {one.objects for one in asked.questions} == {None}
    write = made.write
    write(tmp_path / "annotations" / "instances_train2014.json", {"images": []})
    assert len(registry.read(benchmark("chair", tmp_path)).questions) == 3, "val2014 is meant"


def test_a_limit_draws_and_a_larger_one_adds(tmp_path):
    whole = read("pope", tmp_path).questions
    for seed in range(3):
        few, more = drawn(whole, 2, seed), drawn(whole, 4, seed)
        assert len(few) == 2 and {one.id for one in few} < {one.id for one in more}
        assert [one.id for one in more] == sorted(one.id for one in more)
    asked = registry.read(benchmark("pope", tmp_path / "coco_pope_random.json", limit=2, seed=1))
    assert [one.id for one in asked.questions] == [one.id for one in drawn(whole, 2, 1)]
    assert asked.notes == ("2 of 6 questions, drawn (limit)",)


def test_what_is_scored_together_is_drawn_and_left_out_together(tmp_path):
    path = made.mmhal(tmp_path)
    record = json.loads(path.read_text())[0]
    made.write(path, [{**record, "image_src": f"a/{n}.jpg", "image_id": n} for n in range(24)])
    made.draw(tmp_path / "images", [f"{n}.jpg" for n in range(24) if n != 10])
    names = [int(one.id) for one in registry.read(benchmark("mmhal", path, partial=True)).questions]
    assert names == [*range(8), *range(16, 24)], "types follow from the place, modulo 8"
    made.draw(tmp_path / "images", [f"{n}.jpg" for n in range(24)])
    few = registry.read(benchmark("mmhal", path, limit=3)).questions
    assert len(few) == 8 and int(few[0].id) % 8 == 0
    path = made.hallusion(tmp_path)
    (tmp_path / "hallusion_bench" / "VD" / "s" / "0_0.png").unlink()
    (left,) = registry.read(benchmark("hallusion", path, partial=True)).questions
    assert left.id == "VS_s_0_0_0"


def test_mmhals_pictures_are_found_by_the_end_of_their_address(tmp_path):
    first, second = read("mmhal", tmp_path).questions
    assert (first.id, first.kind, first.answer) == ("0", "other", "A dog.")
    assert second.images[0] == made.picture(1)


def test_hallusions_figures_and_the_question_without_one(tmp_path):
    asked = read("hallusion", tmp_path)
    figure, edited, blank = asked.questions
    assert figure.id == "VD_s_0_0_0" and edited.answer == "no"
    assert open_images(blank)[0].getextrema() == ((255, 255),) * 3
    assert any("without a figure (1)" in note for note in asked.notes)


@pytest.mark.parametrize(
    ("name", "file", "content", "says"),
    [
        ("amber", "data/query/query_all.json", [{"id": 77, "image": "a", "query": "b"}], "id '77'"),
        ("amber", "data/query/query_all.json", [{"id": 1, "query": "b"}], "has no 'image'"),
        ("pope", "coco_pope_random.json", [{"question_id": 1, "image": "a.jpg"}], "has no 'text'"),
        ("chair", "annotations/instances_val2014.json", {"images": [{"id": 1}]}, "file_name"),
        ("chair", "annotations/instances_val2014.json", [1], "has no images"),
        ("objhal", "obj_halbench.jsonl", [{"image_id": 1, "image": "a"}], "has no 'question'"),
        (
            "objhal",
            "obj_halbench.jsonl",
            [{"image_id": 1, "image": "?" * 2000, "question": "a"}],
            "neither a file's name nor base64",
        ),
        ("mmhal", "response_template.json", [{"question": "a"}], "has no 'gt_answer'"),
        ("hallusion", "HallusionBench.json", [{"category": "VD"}], "has no 'subcategory'"),
    ],
)
def test_a_file_in_another_form_is_one_line(name, file, content, says, tmp_path):
    path = MAKERS[name](tmp_path)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(InputError) as problem:
        registry.read(benchmark(name, path))
    assert says in str(problem.value) and "\n" not in str(problem.value)


@pytest.mark.parametrize("name", [*MAKERS, "own"])
def test_a_path_that_is_not_there_is_one_line(name, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        registry.read(benchmark(name, tmp_path / "nowhere"))
