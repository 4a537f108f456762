"""The commands that pages show, in blocks and in passing, exist and have the options that they are shown with."""

import re
import shlex
from pathlib import Path

import click
import pytest

from celery_agents.cli import agents
from tests.docs.pages import PAGES, ROOT, blocks

IN_PASSING = re.compile(r"`(?:celery -A \S+ )?(agents [a-z-]+(?: [^`]*)?)`")
IN_A_BLOCK = re.compile(r"^\$ .*?celery -A \S+ (agents .*)$", re.MULTILINE)


def shown(page: Path) -> set[str]:
    """Every call of `agents` on a page, from the word `agents` on."""
    text = page.read_text()
    console = "\n".join(blocks(page, "console"))
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return set(IN_A_BLOCK.findall(console)) | set(IN_PASSING.findall(" ".join(prose.split())))


@pytest.mark.parametrize("page", [page for page in PAGES if shown(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_exist_with_their_options(page: Path) -> None:
    context = click.Context(agents)
    for call in sorted(shown(page)):
        words = shlex.split(call, comments=True)
        if words[1].startswith("-"):
            continue
        command = agents.get_command(context, words[1])
        assert command is not None, call
        if isinstance(command, click.Group) and len(words) > 2:
            words = words[1:]
            command = command.get_command(context, words[1])
            assert command is not None, call
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        asked = {word.partition("=")[0].rstrip(",") for word in words[2:] if word.startswith("--")}
        assert asked <= options | {"--help"}, call


def test_pages_show_every_command() -> None:
    commands = {call.split()[1] for page in PAGES for call in shown(page)}
    assert set(agents.list_commands(click.Context(agents))) <= commands


def test_the_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in {name for page in PAGES for name in re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text())}:
        assert f".PHONY: {target}\n" in makefile
