"""What stage `answer` reads outside of `results/`: the files of its benchmarks.

Not their folders: of 40,000 pictures of COCO, the 500 that are asked about. What answers are scored
by (truth, synonyms, language data) is read by stage `evaluate`, which stays where it is.
"""

from collections.abc import Iterator
from pathlib import Path

from adapt.benchmarks import registry
from adapt.benchmarks.settings import Benchmark
from adapt.benchmarks.suite import Files, Suite
from adapt.data.outside import Outside
from adapt.generation import benched, verdicts
from adapt.generation.settings import Config
from adapt.metrics.headline import ARMS

# Files by which answers are scored: `answer` writes their names down and does not read them.
NOT_READ = ("truth", "synonyms", "similarity", "lemmas")


def of_benchmarks(config: Config) -> tuple[Outside, ...]:
    """All of it; InputError as from `benched.suites`."""
    suites = [registry.read(one) for one in config.benchmarks]
    benched.rehearse(config, suites)
    pairs = enumerate(zip(config.benchmarks, suites, strict=True))
    return tuple(one for number, pair in pairs for one in _of(number, *pair))


def _of(number: int, benchmark: Benchmark, suite: Suite) -> Iterator[Outside]:
    """What the keys of one benchmark name."""
    key = ("benchmarks", number)
    read, pictures = map(Path, suite.fingerprint["files"]), _pictures(suite)
    # A file of questions goes by `path`, wherever it lies; only pictures are divided.
    if (images := benchmark.images) is not None:
        inside = [one for one in pictures if _is_in(images, one)]
        yield Outside((*key, "images"), images, tuple(inside))
        pictures = [one for one in pictures if not _is_in(images, one)]
    yield Outside((*key, "path"), benchmark.path, (*read, *pictures))
    if benchmark.verdicts is not None:
        judged = tuple(map(Path, verdicts.files(benchmark, [*ARMS])))
        yield Outside((*key, "verdicts"), benchmark.verdicts, judged)
    for name in NOT_READ:
        if (path := getattr(benchmark, name)) is not None:
            yield Outside((*key, name), path)


def _is_in(folder: str, path: Path) -> bool:
    """As they are written."""
    return path.is_relative_to(folder)


def _pictures(suite: Suite) -> list[Path]:
    """Each file of a picture that is asked about, once."""
    files = [one.images.paths for one in suite.questions if isinstance(one.images, Files)]
    return [*dict.fromkeys(path for paths in files for path in paths)]
