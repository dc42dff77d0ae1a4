"""What is shown of a failure of uv. The samples in `data/uv` are what uv 0.13 wrote, with other names of hosts."""

import asyncio
import sys
from pathlib import Path

import pytest

from agentforge.environments.uv import Uv, explanation, failure
from agentforge.errors import AgentForgeError
from agentforge.errors.environments import IndexUnreachable, InstallFailed, LocalPackageFailed, ResolutionFailed
from agentforge.errors.keeping import PackageBuildFailed

SAMPLES = Path(__file__).parents[1] / "data" / "uv"


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "kind", "first", "told"),
    [
        ("unreachable", IndexUnreachable, "Request failed after 3 retries", "http://127.0.0.1:1/simple/six/"),
        ("unreachable-file", IndexUnreachable, "Request failed after 1 retry", "127.0.0.1:1/six-1.17.0-py3-none-any"),
        ("unknown-host", IndexUnreachable, "Request failed after 1 retry", "http://nowhere.invalid/simple/langchain/"),
        ("server-error", IndexUnreachable, "Request failed after 1 retry", "500 Internal Server Error"),
        ("denied", IndexUnreachable, "No solution found", "An index URL (http://127.0.0.1:8977/denied)"),
        ("offline", IndexUnreachable, "No solution found", "langchain was not found in the cache"),
        ("no-such-version", ResolutionFailed, "No solution found", "there is no version of langchain==99.1"),
        ("conflict", ResolutionFailed, "No solution found", "And because you require pydantic<2"),
        ("hash-mismatch", ResolutionFailed, "Failed to download `idna==3.10`", "sha256:946d195a"),
        ("build-failure", ResolutionFailed, "Failed to build `broken @", "the compiler of broken is missing"),
    ],
)
def test_a_failure_of_uv_begins_with_its_verdict_and_names_the_package_or_the_address(
    name: str, kind: type[Exception], first: str, told: str
) -> None:
    error = failure(sample(name), "Resolving `x`", ResolutionFailed)
    assert type(error) is kind
    assert error.message.startswith(f"Resolving `x` failed: {first}")
    assert told in error.message
    assert not any(talk in error.message for talk in ("DEBUG", "Caused by", "\n..."))
    assert len(error.message.splitlines()) < 12


def test_what_uv_itself_writes_where_nothing_answers_is_shown_from_its_verdict_on(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "UV_CACHE_DIR": str(tmp_path), "UV_HTTP_RETRIES": "1"}
    uv = Uv({**environ, "UV_DEFAULT_INDEX": "http://me:secret@127.0.0.1:1/simple"})
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("langchain\n", encoding="utf-8")
    run = asyncio.run(uv.run("pip", "compile", "--verbose", "--python", sys.executable, wanted))
    error = failure(run.stderr, "Resolving langchain", ResolutionFailed)
    assert error.code == "AF303"
    assert "http://127.0.0.1:1/simple/langchain/" in error.message
    assert "Connection refused" in error.message.splitlines()[-1]
    assert "Caused by" not in error.message
    assert "secret" not in error.message


def test_addresses_are_shown_without_credentials() -> None:
    said = "error: Failed to fetch: `https://me:pass@index.example/a.whl?signature=abc`\n  cause: no"
    assert explanation(said) == "Failed to fetch: `https://index.example/a.whl?...`\n  cause: no"
    build = "error: Failed to build `kit==1`\n\n      [stderr]\n      no answer from https://me:pass@index.example/x"
    error = failure(build, "Building")
    assert isinstance(error, PackageBuildFailed)
    assert "pass" not in error.message + str(error.details)


def test_of_two_verdicts_the_last_counts_and_the_older_form_is_known() -> None:
    assert explanation("error: first\n  cause: a\nDEBUG b\n  c\nerror: second\n  cause: d") == "second\n  cause: d"
    assert explanation("DEBUG a\n  × No solution\n  ╰─▶ Because\n") == "  × No solution\n  ╰─▶ Because"


def test_a_build_may_say_info_and_error_without_its_last_words_being_lost() -> None:
    said = "\n".join(["INFO a", "  of a", "error: broken", "  cause: it", "    INFO b", "    error: c", "    d"])
    assert explanation(said) == "broken\n  cause: it\n    INFO b\n    error: c\n    d"


def test_a_long_explanation_keeps_its_beginning_and_its_end() -> None:
    lines = explanation("error: broken\n" + "\n".join(f"  {n}" for n in range(90))).splitlines()
    assert (len(lines), lines[0], lines[-1]) == (24, "broken", "  89")
    assert type(failure("error: x", "Building")) is InstallFailed


@pytest.mark.parametrize("kind", [PackageBuildFailed, LocalPackageFailed])
def test_what_a_build_said_before_the_verdict_of_uv_build_is_told(kind: type[AgentForgeError]) -> None:
    otherwise = InstallFailed if kind is PackageBuildFailed else kind
    error = failure(sample("wheel-failure"), "Building a wheel", otherwise)
    assert type(error) is kind
    assert "OSError: the glue of broken is missing" in error.message
    told = "the build said nothing" if kind is PackageBuildFailed else "failed: Failed to build `x`\n  cause: it"
    for begun in ("Building wheel...", "Building wheel from source distribution..."):
        nothing = failure(f"{begun}\nerror: Failed to build `x`\n  cause: it", "Building", otherwise)
        assert nothing.message.endswith(told)
