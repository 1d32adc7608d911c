"""Ways to break a model's folder, each a function that changes one."""

import json
import os

from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def written(name, content):
    """A change: a file with this content, text or bytes."""

    def change(folder):
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)

    return change


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def edited(name, **values):
    """A change of keys in a JSON file, `a__b` for b in a; None removes the key."""

    def change(folder):
        content = json.loads((folder / name).read_text())
        for key, value in values.items():
            *above, last = key.split("__")
            inner = content
            for part in above:
                inner = inner[part]
            inner.pop(last, None) if value is None else inner.update({last: value})
        (folder / name).write_text(json.dumps(content))

    return change


def tensors(change_one):
    """A change of the weights, a dict of tensors by name."""

    def change(folder):
        weights = load_file(folder / WEIGHTS)
        change_one(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return change


def renamed(weights):
    for name in [name for name in weights if "language_model" in name]:
        weights[name.replace("language_model", "llm_backbone")] = weights.pop(name)


def first(weights, end):
    return next(name for name in sorted(weights) if name.endswith(end))


def dropped(end):
    return lambda weights: weights.pop(first(weights, end))


def filled(end, value):
    def change(weights):
        weights[first(weights, end)].view(-1)[3] = value

    return change


def cut(share):
    def change(folder):
        size = (folder / WEIGHTS).stat().st_size
        os.truncate(folder / WEIGHTS, int(size * share))

    return change


def sharded(index, keep=(1, 2)):
    """Two shards and an index of them, changed by `index`."""

    def change(folder):
        weights = load_file(folder / WEIGHTS)
        names = sorted(weights)
        files = {1: names[::2], 2: names[1::2]}
        shards = {n: f"model-0000{n}-of-00002.safetensors" for n in files}
        for n in keep:
            part = {name: weights[name] for name in files[n]}
            save_file(part, folder / shards[n], metadata={"format": "pt"})
        (folder / WEIGHTS).unlink()
        content = {
            "metadata": {},
            "weight_map": {name: shards[n] for n in files for name in files[n]},
        }
        path = folder / f"{WEIGHTS}.index.json"
        path.write_text(json.dumps(content))
        index(path)

    return change


def mapped(value):
    """The index says that one tensor is in the file `value`."""

    def change(path):
        content = json.loads(path.read_text())
        content["weight_map"][first(content["weight_map"], "weight")] = value
        path.write_text(json.dumps(content))

    return change


def linked(name, target):
    def change(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def piped(name):
    def change(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def lost(end):
    def change(folder):
        path = folder / "adapter_model.safetensors"
        weights = load_file(path)
        del weights[first(weights, end)]
        save_file(weights, path)

    return change


def more_words(folder):
    """A tokenizer with a word that the model does not have, in every question."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["Describe"] = 10**6
    path.write_text(json.dumps(content))
