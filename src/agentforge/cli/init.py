"""`agentforge init`: a new project with an agent that works at once."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from agentforge.cli.examples import example_folder
from agentforge.cli.output import print_text, say
from agentforge.errors import UsageFault

__all__ = ["EXAMPLE", "init"]

EXAMPLE = "Example: agentforge init my-project"
_PROJECT = """\
# Settings of this project; every key has a default. Reference: docs/reference/project.md

# [models.default]                       # without it: OPENAI_BASE_URL and OPENAI_API_KEY, else the embedded model
# base_url = "https://api.openai.com/v1"
# api_key  = "${env:OPENAI_API_KEY}"     # a reference, never the key itself
# model    = "gpt-4o-mini"

# [tools]                                # the environment of python tools
# requirements = ["pandas>=2"]
"""
_FILES = ("agent.yaml", "tools.py", "expenses.csv")


def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder of the new project.")] = Path(),
) -> None:
    """Make a new project with a working agent; existing files are never overwritten."""
    taken = [name for name in ("agentforge.toml", *_FILES) if (folder / name).exists()]
    if taken:
        listed = ", ".join(f"`{name}`" for name in taken)
        raise UsageFault(
            f"`{folder}` already has {listed}", hint="Choose another folder: `agentforge init my-project`."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "agentforge.toml").write_text(_PROJECT)
        for name in _FILES:
            shutil.copyfile(example_folder("expenses") / name, folder / name)
    except OSError as error:
        raise UsageFault(f"`{folder}` can't be written: {error.strerror}") from None
    for name in ("agentforge.toml", *_FILES):
        print_text(str(folder / name))
    where = f"cd {folder} && " if folder != Path() else ""
    say(f'try: {where}agentforge run agent.yaml "How much did we spend on travel?" --on langchain')
