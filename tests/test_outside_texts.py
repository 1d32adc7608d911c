"""Text from outside reaches a file name, a figure, a tag or a terminal through `adapt.names` alone.

The sources are read, so that a new place is found before any text is. What may stand there without
one of its functions is what the project wrote itself: literals, and numbers with a format.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.support.closure import ROOT

SOURCES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text())
    for folder in ("adapt", "flows")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
# Places that put together what they print from lines that went through `adapt.names` one by one, or
# print nothing that a stranger has written.
PRINTED = {
    "adapt/command.py": "`tell` prints what `message` has made a line of",
    "adapt/data/__main__.py": "`sections.terminal` puts every text through `plain`; JSON escapes",
    "adapt/inspect/__main__.py": "facts of a model that is there; JSON escapes",
    "adapt/launch.py": "names of metrics, of settings that allow letters only",
    "adapt/recipe.py": "keys and values of the project's own recipes",
    "adapt/score/__main__.py": "a table of numbers; JSON escapes",
    "adapt/tracking/__main__.py": "lines of `moving`: names of experiments and numbers",
    "flows/compare/__main__.py": "a table of the project's own arms",
    "flows/promote/__main__.py": "`told` and `hand` put every text through `one_line`",
    "flows/report.py": "a table of stages and numbers",
    "flows/rounds.py": "a table of numbers, and names of cells",
    "flows/retrain.py": "sentences about stages and times of this workspace",
}
# Names in file names that a stranger cannot choose.
OWN_WORDS = {
    **dict.fromkeys(("split", "name", "stage", "signal", "n"), "of a list of our own"),
    **dict.fromkeys(("label", "field.name", "service.name"), "letters, digits, - and _ only"),
    **dict.fromkeys(("os.getpid()", "uuid.uuid4().hex", "os.getuid()"), "of the system"),
    **dict.fromkeys(("key", "digest", "came.hex()", "self._key(prompts, sizes)"), "hex digits"),
    **dict.fromkeys(("ending", "own", "status", "_suffix()"), "one of a few of our own"),
    **dict.fromkeys(("number", "rank", "state.global_step", "context.get_world_rank()"), "numbers"),
    **dict.fromkeys(("journal.id", "commit[:DIGITS]", "uuid.uuid4().hex[:8]"), "hex digits"),
    "key(root, named, entry, before)": "hex digits",
}
SAFE = {"figure_text", "file_name", "one_line", "tag", "shown", "plain", "visible"}
# Methods of matplotlib that draw a text, and where in their arguments it stands.
DRAWN = {
    **dict.fromkeys(("set_title", "suptitle", "supxlabel", "supylabel"), 0),
    **dict.fromkeys(("set_xlabel", "set_ylabel", "set_label", "set_text", "set_label_text"), 0),
    **dict.fromkeys(("annotate",), 0),
    **dict.fromkeys(("set_xticklabels", "set_yticklabels"), 0),
    **dict.fromkeys(("set_xticks", "set_yticks", "bar_label"), 1),
    "text": 2,
}
KEYWORDS = ("label", "labels", "title", "xlabel", "ylabel")


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else ""
            yield (function.id if isinstance(function, ast.Name) else name), node


def is_ours(node: ast.AST, known: frozenset[str] = frozenset()) -> bool:
    """Whether an expression is a literal, a number with a format, or came out of `adapt.names`."""
    match node:
        case ast.Constant():
            return True
        case ast.JoinedStr(values=values):
            return all(is_ours(value, known) for value in values)
        case ast.FormattedValue(value=value, format_spec=form):
            kind = ast.unparse(form)[-2:-1] if form else ""
            return kind in tuple("dfgen%,") or is_ours(value, known)
        case ast.IfExp(body=body, orelse=other):
            return is_ours(body, known) and is_ours(other, known)
        case ast.BinOp(left=left, right=right):
            return is_ours(left, known) and is_ours(right, known)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return all(is_ours(part, known) for part in parts)
        case ast.ListComp(elt=element):
            return is_ours(element, known)
        case ast.Name(id=name):
            return name in known
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in SAFE
    return False


def known_names(tree: ast.AST) -> frozenset[str]:
    """Local names that are only ever given such an expression."""
    given: dict[str, list[bool]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            given.setdefault(node.targets[0].id, []).append(is_ours(node.value))
        elif isinstance(node, ast.arg):
            given.setdefault(node.arg, []).append(False)
    return frozenset(name for name, ours in given.items() if all(ours))


def drawn(tree: ast.AST) -> Iterator[tuple[int, ast.AST]]:
    """Every text that a file hands to matplotlib."""
    for name, call in calls(tree):
        place = DRAWN.get(name)
        if place is not None and len(call.args) > place:
            yield call.lineno, call.args[place]
        if isinstance(call.func, ast.Attribute):
            for keyword in call.keywords:
                if keyword.arg in KEYWORDS:
                    yield call.lineno, keyword.value


def draws(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.ImportFrom) and (node.module or "").startswith("matplotlib")
        for node in ast.walk(tree)
    )


FIGURES = [name for name, tree in SOURCES.items() if draws(tree)]


@pytest.mark.parametrize("file", FIGURES)
def test_every_text_of_a_figure_goes_through_figure_text(file: str) -> None:
    tree = SOURCES[file]
    known = known_names(tree)
    found = [f"line {line}" for line, text in drawn(tree) if not is_ours(text, known)]
    assert not found, f"{file}: {', '.join(found)}: put the text through names.figure_text"


def test_the_check_of_figures_can_fail() -> None:
    planted = (
        "def f(axes, row):\n    axes.set_title(row.question)\n    axes.plot([], label=row.id)\n"
    )
    assert [line for line, text in drawn(ast.parse(planted)) if not is_ours(text)] == [2, 3]


# ---- files ---------------------------------------------------------------------------------------


def file_names(tree: ast.AST) -> Iterator[ast.FormattedValue]:
    """Every value that an f-string puts into a part of a path."""
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [node.right]
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            is_path = isinstance(node.func, ast.Name) and node.func.id in ("Path", "PurePosixPath")
            is_named = name in ("with_name", "joinpath", "with_stem")
            parts = [*node.args[is_path:]] if is_path or is_named else []
        for part in parts:
            for value in ast.walk(part):
                if isinstance(part, ast.JoinedStr) and isinstance(value, ast.FormattedValue):
                    yield value


def is_own_name(value: ast.FormattedValue) -> bool:
    written = ast.unparse(value.value)
    # The name of a path that is there already: what is put beside it has its name and more.
    is_beside = written.endswith((".name", "_name"))
    is_constant = written.rpartition(".")[2].isupper()
    return is_ours(value) or written in OWN_WORDS or is_beside or is_constant


def test_every_part_of_a_path_is_ours_or_goes_through_file_name() -> None:
    found = [
        f"{file}: line {value.lineno}: {ast.unparse(value.value)}"
        for file, tree in SOURCES.items()
        for value in file_names(tree)
        if not is_own_name(value)
    ]
    assert not found, f"put it through names.file_name: {'; '.join(found)}"
    planted = ast.parse("path = folder / f'{row.id}.png'")
    assert not any(map(is_own_name, file_names(planted)))


# ---- tags ----------------------------------------------------------------------------------------

TAGGED = {  # what sets a tag or parameter, and where in its arguments the text stands
    **dict.fromkeys(("RunTag", "Param", "LoggedModelTag", "ModelVersionTag"), 1),
    **dict.fromkeys(("set_tag", "set_registered_model_tag", "set_experiment_tag"), 2),
    "set_model_version_tag": 3,
}
COPIED = {
    "adapt/tracking/transfer.py": "moves a run with the tags that it has",
    "adapt/tracking/outbox.py": "the id of a journal, hex digits",
    "adapt/tracking/results.py": "JSON, which escapes",
}


def tags(tree: ast.AST) -> Iterator[ast.AST]:
    for name, call in calls(tree):
        if name in TAGGED and len(call.args) > TAGGED[name]:
            yield call.args[TAGGED[name]]


def test_every_tag_goes_through_tag() -> None:
    for file, tree in SOURCES.items():
        bad = [ast.unparse(text) for text in tags(tree) if not is_ours(text, known_names(tree))]
        assert not bad or file in COPIED, f"{file}: put it through names.tag: {'; '.join(bad)}"
    assert not any(map(is_ours, tags(ast.parse("client.set_tag(run, 'id', row.id)"))))


# ---- lines ---------------------------------------------------------------------------------------


def printed(tree: ast.AST) -> Iterator[ast.AST]:
    for name, call in calls(tree):
        where = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        is_log = name in ("info", "warning", "error") and where in LOGS
        if name == "print" or is_log:
            yield from call.args


LOGS = ("log", "_log", "logger", "logging", "get_run_logger()")


def test_every_line_goes_through_one_line() -> None:
    for file, tree in SOURCES.items():
        bad = [ast.unparse(text) for text in printed(tree) if not is_ours(text, known_names(tree))]
        assert not bad or file in PRINTED, f"{file}: put it through names.one_line: {bad}"
    assert not any(map(is_ours, printed(ast.parse("print(f'{row.id}: {row.text}')"))))


def test_no_exception_is_out_of_date() -> None:
    for file in PRINTED:
        texts, known = list(printed(SOURCES[file])), known_names(SOURCES[file])
        assert not all(is_ours(text, known) for text in texts), f"{file} needs no exception"
    for file in COPIED:
        assert not all(map(is_ours, tags(SOURCES[file]))), f"{file} needs no exception"
