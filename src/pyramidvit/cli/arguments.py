"""Command lines to options: `--key value` and `key=value`, over a YAML file, over defaults."""

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace

from ..errors import UserError, nearest
from ..options import require

if TYPE_CHECKING:
    from ..task import Task, Tiling

Options = TypeVar("Options")

# Options that take no value.
FLAGS = {"help", "json", "print_config", "weights", "ema", "quick", "features"}


def build_parser(verb: str, description: str, example: str) -> ArgumentParser:
    return ArgumentParser(
        prog=f"pvt {verb}",
        description=f"{description}\n\nexample: {example}",
        exit_on_error=False,
        formatter_class=Formatter,
    )


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parses what follows the verb; `--help` prints and exits with 0.

    Raises:
        UserError: An unknown option (the nearest is named), or a value that does not fit.
    """
    spelled = spell_out(arguments, option_names(parser))
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return parser.parse_args(spelled)
    except UnicodeDecodeError as error:
        raise UserError("the file given to --config is not text") from error
    except ArgumentError as error:
        raise UserError(plain_message(str(error), option_names(parser))) from error


def option_names(parser: ArgumentParser) -> list[str]:
    """The long options of a parser, without their dashes."""
    return [o[2:] for a in parser._actions for o in a.option_strings if o.startswith("--")]


def spell_out(arguments: Sequence[str], known: Sequence[str]) -> list[str]:
    """Turns key=value into --key=value and --some-key into --some_key.

    A word with "=" that starts with no known key stays as it is: it may be a file's name.

    Raises:
        UserError: An unknown option; the nearest one is named.
    """
    spelled: list[str] = []
    for word in arguments:
        if spelled and spelled[-1].startswith("--") and spelled[-1][2:] in set(known) - FLAGS:
            spelled.append(word)  # the value of the option before it
            continue
        match = re.fullmatch(r"(--)?([A-Za-z][\w.-]*)(=.*)?", word, flags=re.DOTALL)
        if not match or not (match[1] or match[3]):
            spelled.append(word)
            continue
        dashes, name, value = match[1], match[2].replace("-", "_"), match[3] or ""
        if name in FLAGS & set(known) and value.lower() in ("=true", "=false"):
            spelled += [f"--{name}"] * (value.lower() == "=true")
            continue
        if name in known:
            spelled.append(f"--{name}{value}")
        elif dashes or not Path(word).exists():
            raise UserError(f"unknown option {match[2]}; nearest: {nearest(name, known)}")
        else:
            spelled.append(word)
    return spelled


def plain_message(message: str, known: Sequence[str]) -> str:
    """The heart of the parser's message, in one line and in words."""
    text = " ".join(message.split())
    foreign = re.search(r"Option '(\w+)' is not accepted", text)
    if foreign:  # an unknown key in a YAML file
        return f"unknown option {foreign[1]}; nearest: {nearest(foreign[1], known)}"
    stray = re.fullmatch(r"unrecognized arguments: (\S+)", text)
    if stray and "data" in known and Path(stray[1]).exists():
        return f"{text}; did you mean --data {stray[1]}?"
    text = re.sub(r"^(error: )?(Parser key|Validation failed:?) *", "", text)
    text = re.sub(r"^\"(\w+)\": ", r"--\1: ", text)
    text = re.sub(r"Expected a <class '(\w+)'>\. Got value: ", r"must be \1, got ", text)
    text = re.sub(
        r"Expected a typing\.Literal\[(.*?)\]\. Got value: ", r"must be one of \1, got ", text
    )
    return text[:300]


def to_options(kind: type[Options], namespace: Namespace) -> Options:
    """The part of a parsed command line that a dataclass of options has fields for."""
    fields: Mapping[str, Any] = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{name: namespace[name] for name in fields})


def tiling_of(task: "Task", options: Any) -> "Tiling | None":
    """What `tile` and `overlap` of an evaluation's or a prediction's options ask for.

    Raises:
        UserError: A number out of range, or a task that cannot look at windows.
    """
    from ..task import Tiling

    require(options, "tile", options.tile == 0 or options.tile >= 32, "0, or 32 or more")
    require(options, "overlap", 0 <= options.overlap <= 0.9, "from 0 to 0.9")
    if not options.tile:
        return None
    if task.predict_tiled is None:
        raise UserError(f"--tile: {task.name} looks at pictures as a whole; leave it out")
    return Tiling(side=options.tile, overlap=options.overlap)


class Formatter(DefaultHelpFormatter):
    """Keeps the line breaks of the description."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "".join(indent + line for line in text.splitlines(keepends=True))
