"""A benchmark in params.yaml and on a command line."""

import pytest

from adapt.benchmarks.settings import parsed
from adapt.generation.settings import Config
from adapt.params import InputError, as_params, load, read
from tests.support.closure import ROOT


def config(benchmarks):
    params = read(ROOT / "params.yaml")
    params["answer"] |= {"benchmarks": benchmarks}
    return load(params, "answer", Config)


def test_what_is_not_given_is_left_to_the_benchmark():
    (one,) = config([{"name": "amber", "path": "AMBER"}]).benchmarks
    assert (one.called, one.limit, one.similarity, one.suffix) == ("amber", 0, None, None)
    (same,) = load(
        {
            **read(ROOT / "params.yaml"),
            **as_params("answer", config([one.model_dump(exclude_none=True)])),
        },
        "answer",
        Config,
    ).benchmarks
    assert same == one


@pytest.mark.parametrize(
    ("benchmarks", "says"),
    [
        ([{"name": "amber"}], r"missing key answer\.benchmarks\[0\]\.path"),
        ([{"name": "ambr", "path": "x"}], r"benchmarks\[0\]\.name: must be 'amber', 'pope'"),
        (
            [{"name": "amber", "path": "x", "imges": "y"}],
            r"unknown key answer\.benchmarks\[0\]\.imges; did you mean .*\[0\]\.images",
        ),
        (
            [{"name": "amber", "path": "x", "synonyms": "y"}],
            r"benchmarks\[0\]\.synonyms: is no key of amber; known: name, path",
        ),
        ([{"name": "pope", "path": "x", "label": "a.b"}], r"label: must be letters, digits"),
        (
            [{"name": "mmhal", "path": "x", "judge": {"url": "ftp://a", "model": "m"}}],
            r"judge\.url: must be an http",
        ),
        (
            [{"name": "mmhal", "path": "x", "judge": {"url": "http://a", "modl": "m"}}],
            r"unknown key answer\.benchmarks\[0\]\.judge\.modl; did you mean .*judge\.model",
        ),
        (
            [{"name": "pope", "path": "x"}, {"name": "pope", "path": "y"}],
            r"answer\.benchmarks: two are called pope; give one of them another label",
        ),
    ],
)
def test_a_mistake_names_its_key(benchmarks, says):
    with pytest.raises(InputError, match=says) as problem:
        config(benchmarks)
    assert "\n" not in str(problem.value)


def test_arguments_of_the_command():
    one = parsed("random:pope=coco pope.json,images=val 2014,partial=true,limit=5,parser=vcd")
    assert (one.name, one.called, one.path) == ("pope", "random", "coco pope.json")
    assert (one.images, one.partial, one.limit, one.parser) == ("val 2014", True, 5, "vcd")
    assert parsed("amber=a,suffix= Yes or no?").suffix == " Yes or no?"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("amber", r"expected \[LABEL:\]NAME=PATH"),
        ("amber=", r"expected \[LABEL:\]NAME=PATH"),
        ("ambr=x", "no benchmark is called 'ambr'; did you mean amber"),
        ("amber=a,b", "'b' is not KEY=VALUE; a path may have no comma"),
        ("amber=a,limt=3", "unknown key benchmark.limt; did you mean benchmark.limit"),
        ("amber=a,limit=few", "limit: expected a whole number"),
        ("amber=a,partial=yes", "partial: expected true or false"),
    ],
)
def test_a_mistake_in_an_argument(text, says):
    with pytest.raises(InputError, match=says):
        parsed(text)
