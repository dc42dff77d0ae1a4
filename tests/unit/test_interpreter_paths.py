"""What has to be shown for a Python to start, by how it was installed."""

from pathlib import Path

from agentforge.workers.interpreter import started_from


def installed(prefix: Path) -> Path:
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib" / "python3.11").mkdir(parents=True)
    program = prefix / "bin" / "python3.11"
    program.touch()
    return program


def environment(prefix: Path, program: Path, home: Path) -> Path:
    (prefix / "bin").mkdir(parents=True)
    (prefix / "pyvenv.cfg").write_text(f"home = {home}\nversion = 3.11.7\n")
    python = prefix / "bin" / "python"
    python.symlink_to(program)
    return python


def test_an_environment_and_what_it_was_made_with(tmp_path: Path) -> None:
    program = installed(tmp_path / "base")
    python = environment(tmp_path / "venv", program, program.parent)
    assert set(started_from(python)) == {tmp_path / "venv", tmp_path / "base"}


def test_an_installation_by_both_of_its_names(tmp_path: Path) -> None:
    """A folder may be a link to the one of the exact version."""
    program = installed(tmp_path / "cpython-3.11.7")
    (tmp_path / "cpython-3.11").symlink_to(tmp_path / "cpython-3.11.7")
    by_link = tmp_path / "cpython-3.11" / "bin" / "python3.11"
    python = environment(tmp_path / "venv", by_link, by_link.parent)
    assert program.exists()
    assert set(started_from(python)) == {tmp_path / each for each in ("venv", "cpython-3.11", "cpython-3.11.7")}


def test_a_link_in_a_folder_of_other_things_is_shown_by_itself(tmp_path: Path) -> None:
    program = installed(tmp_path / "base")
    (tmp_path / "home" / "bin").mkdir(parents=True)
    (tmp_path / "home" / "secret").touch()
    link = tmp_path / "home" / "bin" / "python3"
    link.symlink_to(program)
    python = environment(tmp_path / "venv", link, program.parent)
    shown = set(started_from(python))
    assert shown == {tmp_path / "venv", link, tmp_path / "base"}


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert started_from(tmp_path / "a")
