"""Made-up benchmarks in their published forms, with pictures of noise."""

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adapt.benchmarks.settings import Benchmark

SIZE = 32


def benchmark(name: str, path: Path, **options: Any) -> Benchmark:
    """A benchmark's settings, as params.yaml has them."""
    return Benchmark(name=name, path=str(path), **options)


def picture(seed: int) -> bytes:
    file, rng = io.BytesIO(), np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def draw(folder: Path, names: Iterable[str]) -> None:
    """A picture for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        (folder / name).write_bytes(picture(seed))


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_lines(path: Path, table: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")


def amber(root: Path) -> Path:
    """AMBER's folder: two descriptions, and a question of each type about each picture."""
    data = root / "data"
    words = ("car", "house", "tree", "red", "green")
    notes: list[dict[str, Any]] = [
        {"id": 1, "type": "generative", "truth": ["car"], "hallu": ["tree"]},
        {"id": 2, "type": "generative", "truth": ["house", "tree"], "hallu": ["car"]},
        {"id": 3, "type": "discriminative-hallucination", "truth": "no"},
        {"id": 4, "type": "discriminative-attribute-state", "truth": "yes"},
        {"id": 5, "type": "relation", "truth": "no"},
    ]
    queries = {1: "Describe this image.", 2: "Describe this image."}
    queries |= {3: "Is there a tree?", 4: "Is the car red?", 5: "Is there a car by the house?"}
    images = {1: 1, 2: 2, 3: 1, 4: 1, 5: 2}
    asked = [{"id": i, "image": f"AMBER_{images[i]}.jpg", "query": queries[i]} for i in queries]
    write(data / "annotations.json", notes)
    write(data / "query" / "query_all.json", asked)
    write(data / "query" / "query_generative.json", asked[:2])
    write(data / "relation.json", {word: [] for word in words})
    (data / "safe_words.txt").write_text("picture\n")
    (data / "metrics.txt").write_text(_counters())
    draw(root / "image", ("AMBER_1.jpg", "AMBER_2.jpg"))
    return root


def _counters() -> str:
    from adapt.score import amber_discriminative, amber_generative

    names = {*amber_generative.Counted._fields, *amber_discriminative.COUNTERS}
    return "".join(f"{name}=0.001\n" for name in sorted(names))


def pope(root: Path) -> Path:
    """A file of POPE's and `val2014/` beside it."""
    images = [f"COCO_val2014_{number:012}.jpg" for number in (7, 9)]
    asked = [("snowboard", "yes"), ("dog", "no"), ("car", "no")]
    rows = [
        {"question_id": n, "image": image, "text": f"Is there a {name} in the image?", "label": is_}
        for n, (image, (name, is_)) in enumerate(((i, a) for i in images for a in asked), 1)
    ]
    write_lines(root / "coco_pope_random.json", rows)
    draw(root / "val2014", images)
    return root / "coco_pope_random.json"


def coco(root: Path) -> Path:
    """COCO's folder with three pictures: a dog, a dog and a cup, nothing."""
    ids = (42, 9, 7)
    files = [f"COCO_val2014_{number:012}.jpg" for number in ids]
    images = [{"id": i, "file_name": f} for i, f in zip(ids, files, strict=True)]
    things = [{"image_id": i, "category_id": c} for i, c in ((42, 18), (9, 18), (9, 47))]
    categories = [{"id": 18, "name": "dog"}, {"id": 47, "name": "cup"}]
    captions = [{"image_id": 42, "caption": "A dog beside a car."}]
    folder = root / "annotations"
    instances = {"images": images, "annotations": things, "categories": categories}
    write(folder / "instances_val2014.json", instances)
    write(folder / "captions_val2014.json", {"images": images, "annotations": captions})
    draw(root / "val2014", files)
    return root


def objhal(root: Path) -> Path:
    """RLHF-V's form: the picture in the row."""
    rows = [
        {"image_id": i, "question": "What is here?", "image": base64.b64encode(picture(i)).decode()}
        for i in (42, 9)
    ]
    write_lines(root / "obj_halbench.jsonl", rows)
    write(root / "objects.json", {"42": ["dog"], "9": ["cup"]})
    return root / "obj_halbench.jsonl"


def mmhal(root: Path) -> Path:
    """Two of MMHal's records, whose pictures were addresses."""
    rows = [
        {
            "question_type": "attribute",
            "image_id": f"{number}",
            "image_src": f"https://example.org/a/{number}_o.jpg",
            "image_content": ["dog", "grass"],
            "question": f"What is in picture {number}?",
            "gt_answer": "A dog.",
            "model_answer": "",
        }
        for number in range(2)
    ]
    write(root / "response_template.json", rows)
    draw(root / "images", ("0_o.jpg", "1_o.jpg"))
    return root / "response_template.json"


def hallusion(root: Path) -> Path:
    """A question about an original and an edited figure, and one without a figure."""
    of = {"subcategory": "s", "set_id": "0", "question_id": "0"}
    figures = [
        ("VD", "1", "0", "1", "./hallusion_bench/VD/s/0_0.png"),
        ("VD", "2", "1", "0", "./hallusion_bench/VD/s/0_1.png"),
        ("VS", "0", "0", "1", None),
    ]
    rows = [
        {
            **of,
            **dict(zip(("category", "visual_input", "figure_id", "gt_answer"), f, strict=False)),
            "question": "Are the two lines of one length?",
            "filename": f[4],
        }
        for f in figures
    ]
    write(root / "HallusionBench.json", rows)
    draw(root / "hallusion_bench" / "VD" / "s", ("0_0.png", "0_1.png"))
    return root / "HallusionBench.json"


MAKERS = {
    "amber": amber,
    "pope": pope,
    "chair": coco,
    "objhal": objhal,
    "mmhal": mmhal,
    "hallusion": hallusion,
}
