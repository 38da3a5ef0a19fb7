"""Whatever the documents show is run, and whatever can be typed is described."""

import importlib
import inspect
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from jsonargparse import ArgumentParser

import pyramidvit
from pyramidvit.cli import VERBS
from pyramidvit.cli.arguments import option_names, parse
from pyramidvit.cli.kinds import KINDS, kind_of, named_model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


class CodeBlock(NamedTuple):
    language: str
    text: str
    line: int  # of its first line, from 1


class Command(NamedTuple):
    where: str
    words: tuple[str, ...]  # behind "pvt"


def blocks(page: Path) -> Iterator[CodeBlock]:
    """The fenced code blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        yield CodeBlock(match[1], match[2], text[: match.start(2)].count("\n") + 1)


def commands(page: Path) -> Iterator[Command]:
    """What is typed behind `pvt` or `python -m pyramidvit` on a page."""
    for block in blocks(page):
        if block.language not in ("console", "bash", "sh"):
            continue
        text = block.text.replace("\\\n", " " * 2)
        for number, line in enumerate(text.splitlines(), block.line):
            if block.language == "console" and not line.startswith("$ "):
                continue
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:1] == ["pvt"]:
                yield Command(f"{page.name}:{number}", tuple(words[1:]))
            elif "pyramidvit" in words:
                words = words[words.index("pyramidvit") + 1 :]
                yield Command(f"{page.name}:{number}", tuple(words))


COMMANDS = [command for page in PAGES for command in commands(page)]
SHOWN = {name: verb.example for name, verb in VERBS.items()}
SHOWN |= {f"train, {name}": kind.example for name, kind in KINDS.items()}
EXAMPLES = [Command(f"pvt {name}", tuple(shlex.split(e)[1:])) for name, e in SHOWN.items()]


def parser_of(verb: str, arguments: Sequence[str] = ()) -> ArgumentParser:
    """The parser of a verb, without running it; that of `train` depends on the model."""
    module = importlib.import_module(f"pyramidvit.cli.{verb}")
    kinds = (kind_of(named_model(arguments)),) if verb == "train" else ()
    parser = module.make_parser(*kinds)
    assert isinstance(parser, ArgumentParser)
    return parser


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_python_blocks_of_a_page_run_in_their_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python":
            padded = "\n" * (block.line - 1) + block.text  # an error tells the line of the page
            exec(compile(padded, str(page), "exec"), namespace)


def test_there_are_commands_to_check() -> None:
    assert {command.words[0] for command in COMMANDS} >= {"train", "evaluate", "predict", "models"}


@pytest.mark.parametrize("command", [*COMMANDS, *EXAMPLES], ids=lambda command: command.where)
def test_a_shown_command_is_understood(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # commands name the recipes from here
    verb, *arguments = command.words
    assert verb in VERBS
    parse(parser_of(verb, arguments), arguments)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_described_in_the_help(verb: str) -> None:
    parser = parser_of(verb)
    shown = parser.format_help()
    for action in parser._actions:
        name = max(action.option_strings, key=len, default=action.dest)
        words = re.sub(r"\(type:.*", "", action.help or "").strip()
        assert len(words) > 8, f"pvt {verb}: {name} is not described"
        assert name in shown


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_shows_an_example(verb: str) -> None:
    assert f"example: {VERBS[verb].example}" in parser_of(verb).format_help()


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict"])
def test_every_option_stands_in_the_page_on_classification(verb: str) -> None:
    page = (ROOT / "docs" / "classification.md").read_text(encoding="utf-8")
    missing = {
        name
        for name in option_names(parser_of(verb))
        if not re.search(rf"`--{name}\b", page) and name not in ("help", "print_config")
    }
    assert not missing


@pytest.mark.parametrize("name", pyramidvit.__all__)
def test_a_public_name_has_a_docstring_and_stands_in_the_docs(name: str) -> None:
    assert inspect.getdoc(getattr(pyramidvit, name))
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert re.search(rf"\b{name}\b", pages)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_table_of_models_in_the_readme_is_what_pvt_models_says() -> None:
    from pyramidvit.cli.models import describe_models

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in describe_models("*", (224, 224)):
        parameters, gflops = row["parameters"], row["gflops"]
        assert isinstance(parameters, int)
        assert isinstance(gflops, float)
        cells = (f"{parameters / 1e6:.1f} M", f"{gflops:.2f}", str(row["imagenet_top1"]))
        assert f"| `{row['model']}` | {' | '.join(cells)} |" in text
