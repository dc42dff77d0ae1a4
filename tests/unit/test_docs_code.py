"""The code blocks of the documentation: commands exist, Python compiles, files load."""

import ast
import importlib
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from agentforge.cli.main import app
from agentforge.config import load_agent, load_project
from agentforge.frameworks import load_manifest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "packages/adapters").rglob("README.md")),
]
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[a-z]+)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
MADE_UP = {"my_framework"}
"""Modules that examples invent."""


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Any]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for each in FENCE.finditer(text):
            if each["language"] in languages:
                line = text.count("\n", 0, each.start()) + 2
                block = Block(page, line, each["language"], textwrap.dedent(each["text"]))
                found.append(pytest.param(block, id=block.name))
    return found


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in a shell block, without assignments and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(re.sub(r"(?<!\S)#.*", "", line), posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, lexer.commenters = True, ""  # `langchain#1` is one word
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("|&;"):
                yield from _command(words)
                words = []
            else:
                words.append(word)
        yield from _command(words)


def _command(words: list[str]) -> Iterator[list[str]]:
    for at, word in enumerate(words):
        if set(word) <= set("<>"):
            words = words[:at]
            break
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words:
        yield words


def wrong_command(words: list[str]) -> str | None:
    """Return what is wrong with an `agentforge` command line, parsed as Typer would but without running it."""
    command: Any = typer.main.get_command(app)
    path, rest = ["agentforge"], list(words)
    while getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        path.append(name)
        if name not in command.commands:
            return f"`{' '.join(path)}` is no command"
        command = command.commands[name]
    options = {name: each for each in command.params if each.param_type_name == "option" for name in each.opts}
    options |= dict.fromkeys(("--help", "-h", "--install-completion", "--show-completion"))
    given = 0
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            given += 1
            continue
        name, equals, _ = word.partition("=")
        if name not in options:
            return f"`{' '.join(path)}` has no option `{name}`"
        option = options[name]
        if option is not None and not option.is_flag and not equals:
            if not rest:
                return f"`{name}` needs a value"
            rest.pop(0)
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    needed = sum(each.required for each in arguments)
    most = 1000 if any(each.nargs == -1 for each in arguments) else len(arguments)
    if "--help" not in words and not needed <= given <= most:
        return f"`{' '.join(path)}` takes {needed} to {most} arguments, not {given}"
    return None


@pytest.mark.feature("AF-181")
@pytest.mark.parametrize("block", blocks("bash", "sh", "console", "shell"))
def test_commands_in_the_documentation_exist(block: Block) -> None:
    assert block.language in ("bash", "console"), "write ```bash, or ```console with `$ ` where output is shown"
    text = block.text
    if block.language == "console":
        text = "\n".join(line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ "))
    for words in commands(text):
        program = words[0].rpartition("/")[2]
        if program == "agentforge":
            assert wrong_command(words[1:]) is None
        elif program == "make":
            targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
            assert set(words[1:]) <= set(targets)
        elif words[1:2] == ["-m"]:
            assert importlib.util.find_spec(words[2]) is not None


@pytest.mark.parametrize("block", blocks("python", "py"))
def test_python_in_the_documentation_compiles_and_its_imports_are_there(block: Block) -> None:
    tree = compile(
        block.text, block.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0].startswith("agentforge"):
            module = importlib.import_module(node.module)
            missing = [each.name for each in node.names if not hasattr(module, each.name)]
            assert missing == [], node.module
        elif isinstance(node, ast.Import):
            names = {each.name for each in node.names} - MADE_UP
            assert [name for name in names if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("block", blocks("yaml", "yml"))
def test_agent_files_in_the_documentation_load(block: Block, tmp_path: Path) -> None:
    for file, function in re.findall(r"python: ([\w/]+\.py):(\w+)", block.text):
        with (tmp_path / file).open("a") as stream:
            stream.write(f"def {function}():\n    pass\n")
    text = block.text
    if not re.search(r"^name:", text, re.MULTILINE):  # a part of an agent file
        text = "name: part\n" + text
    if not re.search(r"^(instructions|native):", text, re.MULTILINE):
        text = "instructions: You help.\n" + text
    (tmp_path / "agent.yaml").write_text(text)
    assert load_agent(tmp_path / "agent.yaml").name


@pytest.mark.parametrize("block", blocks("toml"))
def test_toml_in_the_documentation_is_a_project_or_a_manifest(block: Block, tmp_path: Path) -> None:
    if block.text.startswith("# framework.toml\n"):
        (tmp_path / "framework.toml").write_text(block.text)
        assert load_manifest(tmp_path, check_files=False).name
    elif block.text.startswith("# pyproject.toml\n"):
        assert tomllib.loads(block.text)
    else:
        (tmp_path / "agentforge.toml").write_text(block.text)
        assert load_project(tmp_path, {}).config


@pytest.mark.parametrize("block", blocks("json"))
def test_json_in_the_documentation_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize(
    "line",
    [
        "agentforge rum agent.yaml",
        "agentforge run agent.yaml --no",
        "agentforge runs show",
        "agentforge run a.yaml --on",
        "agentforge init one two",
        "FOO=bar agentforge env bild langchain > out.json",
    ],
)
def test_a_command_that_does_not_exist_would_be_found(line: str) -> None:
    ((_, *words),) = commands(line)
    assert wrong_command(words) is not None


@pytest.mark.parametrize(
    "line",
    [
        "agentforge run agent.yaml -",
        "agentforge env build a b c --json",
        "agentforge --version",
        "agentforge run --help",
    ],
)
def test_a_command_that_exists_is_none(line: str) -> None:
    ((_, *words),) = commands(line)
    assert wrong_command(words) is None
