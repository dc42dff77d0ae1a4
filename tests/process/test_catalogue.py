"""Frameworks of one's own in the catalogue of a project: registered, set, extended, deprecated; by real commands."""

import json
import os
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentforge import Forge

from .index_world import LocalIndex, served
from .kit_world import write_kit, write_library
from .project_world import Project

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def index() -> AsyncIterator[LocalIndex]:
    index = LocalIndex()
    index.add("kit", "1.0", "2024-01-10", ("companion",))
    index.add("kit", "1.1", "2024-02-10", ("companion",))
    index.add("kit", "2.0", "2025-02-10")
    index.add("companion", "1.5", "2024-01-12")
    index.add("companion", "2.0", "2024-01-13")
    index.add("extra", "1.0", "2024-01-14", ("companion>=1",))
    index.add("old", "1.0", "2024-01-14", ("companion<2",))
    async with served(index):
        yield index


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environments of these tests, whose packages are of no use to others."""
    return tmp_path_factory.mktemp("built")


@pytest_asyncio.fixture(loop_scope="module")
async def kits(own_project: Project, index: LocalIndex, built: Path) -> Project:
    """A project whose packages come from the index of these tests."""
    own_project.variables |= {
        "UV_DEFAULT_INDEX": f"{index.url}/simple",
        "UV_CACHE_DIR": str(built / "uv"),
        "UV_HTTP_RETRIES": "0",
        "AGENTFORGE_HOME": str(built / "home"),
    }
    own_project.write("agentforge.toml", "# ours\n[workers]\nidle_s = 60 # a minute\n")
    write_kit(own_project.root / "frameworks/kit")
    return own_project


async def registered(project: Project) -> None:
    done = await project.command("framework", "register", "frameworks/kit", "--json")
    assert (done.code, done.result["registered"]) == (0, ["kit"]), done


async def report(project: Project, agent: str, *options: str) -> dict[str, Any]:
    result = await project.run(agent, "report", "--on", "kit==1.1", *options)
    assert result["status"] == "succeeded", result
    return dict(json.loads(result["output"]))


@pytest.mark.feature("AF-001")
async def test_a_registered_framework_runs_in_the_host_that_runs_already_and_can_be_taken_out(kits: Project) -> None:
    names = [each["name"] for each in (await kits.command("framework", "list", "--json")).objects]
    assert "kit" not in names
    pid = (await kits.host())["pid"]
    await registered(kits)
    text = (kits.root / "agentforge.toml").read_text()
    assert tomllib.loads(text)["catalogue"] == {"folders": ["frameworks/kit"]}
    assert "# ours\n[workers]\nidle_s = 60 # a minute\n" in text
    await registered(kits)  # once more changes nothing
    assert (kits.root / "agentforge.toml").read_text() == text
    agent = kits.agent()
    assert (await report(kits, agent))["adapter"] == 1
    adapter = kits.root / "frameworks/kit/adapter.py"
    adapter.write_text(adapter.read_text().replace("VERSION = 1", "VERSION = 2"))
    assert (await report(kits, agent))["adapter"] == 2
    assert (await kits.host())["pid"] == pid
    shown = (await kits.command("framework", "show", "kit", "--json")).result
    assert (shown["origin"], shown["release"]) == ("folder", None)
    assert (await kits.command("framework", "unregister", "kit")).code == 0
    gone = await kits.run(agent, "report", "--on", "kit==1.1")
    assert gone["error"]["code"] == "AF202"
    assert (await kits.command("framework", "unregister", "kit")).code == 1


@pytest.mark.feature("AF-001")
async def test_a_broken_manifest_is_refused_with_all_its_faults_and_harms_nobody_else(kits: Project) -> None:
    manifest = kits.root / "frameworks/kit/framework.toml"
    good = manifest.read_text()
    manifest.write_text(good.replace('title = "Kit"', "title = 7").replace('"adapter:KitAdapter"', '"adapter"'))
    done = await kits.command("framework", "register", "frameworks/kit")
    assert (done.code, "AF205" in done.err) == (1, True)
    assert "framework.toml:3:9" in done.err
    assert "`releases[0].adapter`" in done.err
    assert "catalogue" not in (kits.root / "agentforge.toml").read_text()
    manifest.write_text(good)
    await registered(kits)
    manifest.write_text(good.replace('title = "Kit"', "title = 7"))
    (kit,) = [each for each in (await kits.command("framework", "list", "--json")).objects if each["name"] == "kit"]
    assert kit["error"]["code"] == "AF205"
    agent = kits.agent()
    assert (await kits.run(agent, "x", "--on", "kit==1.1"))["error"]["code"] == "AF205"
    assert (await kits.run(agent, "x", "--on", "python"))["status"] == "succeeded"
    doctor = {each["check"]: each for each in (await kits.command("doctor", "--json")).objects}
    assert doctor["frameworks"]["state"] == "warning"
    write_kit(kits.root / "other", "langchain")
    clash = await kits.command("framework", "register", "other")
    assert "AF206" in clash.err


@pytest.mark.feature("AF-001")
async def test_odd_manifests_are_told_and_can_be_taken_out(kits: Project) -> None:
    await registered(kits)
    manifest = kits.root / "frameworks/kit/framework.toml"
    manifest.write_text("[" * 100_000)
    listed = {each["name"]: each["error"] for each in (await kits.command("framework", "list", "--json")).objects}
    assert listed["kit"]["code"] == "AF205"
    assert (await kits.run(kits.agent(), "x", "--on", "python"))["status"] == "succeeded"
    assert (await kits.command("framework", "unregister", "frameworks/kit")).code == 0
    manifest.unlink()
    os.mkfifo(manifest)
    refused = await kits.command("framework", "register", "frameworks/kit")
    assert (refused.code, "not a regular file" in refused.err) == (1, True)


@pytest.mark.feature("AF-001")
async def test_a_framework_may_be_called_as_a_command_is(kits: Project) -> None:
    for name in ("search", "compare", "deprecations"):
        write_kit(kits.root / "frameworks" / name, name)
    assert (await kits.command("framework", "register", "frameworks")).code == 0
    for name in ("search", "compare", "deprecations"):
        assert (await kits.command("framework", "show", name, "--json")).result["name"] == name
    wrong = await kits.command("framework", "show", "search/docs")
    assert (wrong.code, "AF201" in wrong.err) == (1, True)


@pytest.mark.feature("AF-005")
async def test_what_is_set_of_a_framework_that_there_is_not_is_warned_of(kits: Project) -> None:
    with (kits.root / "agentforge.toml").open("a") as file:
        file.write('\n[frameworks.pyhton]\nrequirements = ["companion"]\n')
    result = await kits.run(kits.agent(), "x", "--on", "python")
    assert result["status"] == "succeeded"
    assert ["Did you mean `python`?" in each for each in result["warnings"]] == [True]
    for command in (("env", "build", "python"), ("framework", "config", "python")):
        done = await kits.command(*command)
        assert (done.code, "Did you mean `python`?" in done.err) == (0, True)
    doctor = {each["check"]: each for each in (await kits.command("doctor", "--json")).objects}
    assert doctor["frameworks"]["state"] == "warning"
    assert "Did you mean `python`?" in doctor["frameworks"]["message"]


@pytest.mark.feature("AF-005")
async def test_pins_that_nothing_satisfies_are_told_as_the_projects(kits: Project) -> None:
    await registered(kits)
    with (kits.root / "agentforge.toml").open("a") as file:
        file.write('\n[frameworks.kit]\npins = ["companion<1.8", "companion>=2"]\n')
    result = await kits.run(kits.agent(), "x", "--on", "kit==1.1")
    assert result["error"]["code"] == "AF302"
    pins = "`[frameworks.kit] pins` of the project"
    assert f"{pins} wants both `companion<1.8` and `companion>=2`" in result["error"]["message"]


@pytest.mark.feature("AF-005")
async def test_settings_variables_and_packages_come_from_project_and_agent(kits: Project) -> None:
    await registered(kits)
    write_library(kits.root / "agent/mylib", "one", ("extra",))
    agent = kits.agent(
        framework_settings={"rounds": 7, "langchain": {"recursion_limit": 3}, "kit": {"mood": "wild"}},
        requirements=["./mylib"],
    )
    with (kits.root / "agentforge.toml").open("a") as file:
        file.write('\n[frameworks.kit]\npins = ["companion<2"]\nenv = { KIT_CACHE = "off" }\n')
        file.write('[frameworks.kit.settings]\nrounds = 3\nmood = "calm"\n')
    said = await report(kits, agent)
    assert said["settings"] == {"rounds": 7, "mood": "wild"}
    assert said["variables"] == {"KIT_CACHE": "off"}
    assert said["installed"] == {"kit": "1.1", "companion": "1.5", "extra": "1.0", "mylib": "0.1"}
    assert said["mylib"] == "one"
    lock = (kits.root / "agentforge.lock").read_text()
    assert "mylib==0.1" in lock
    assert "://" not in lock
    assert str(kits.root) not in lock
    write_library(kits.root / "agent/mylib", "two", ("extra",))
    assert (await report(kits, agent))["mylib"] == "two"
    assert (kits.root / "agentforge.lock").read_text().count('request = "kit==1.1"') == 1
    shown = (await kits.command("framework", "config", "kit==1.1", "--agent", "agent", "--json")).result
    rows = {row["setting"]: (row["project"], row["agent"]) for row in shown["settings"]}
    assert rows == {"rounds": (3, 7), "mood": ("calm", "wild")}
    assert shown["project"]["pins"] == ["companion<2"]


@pytest.mark.feature("AF-005")
@pytest.mark.parametrize(
    ("settings", "place", "code", "words"),
    [
        ('{"rounds": 0}', "agent.yaml:4:23", "AF104", "less than the minimum"),
        ('{"round": 2}', "agent.yaml:4:13", "AF103", "`rounds`"),
        ('{"kit": {"mood": "mild"}}', "agent.yaml:4:30", "AF104", "'calm'"),
    ],
)
async def test_a_wrong_setting_is_refused_at_its_place(
    kits: Project, settings: str, place: str, code: str, words: str
) -> None:
    await registered(kits)
    kits.write("a/agent.yaml", f"name: a\ninstructions: b\nframework_settings:\n  {settings}\n")
    refused = await kits.run("a", "report", "--on", "kit==1.1")
    assert refused["error"]["code"] == code, refused
    assert words in refused["error"]["message"] + refused["error"]["hint"]
    file, line, _ = place.split(":")
    assert f"{file}:{line}:" in refused["error"]["message"]


@pytest.mark.feature("AF-003")
async def test_a_conflict_says_who_wants_what(kits: Project) -> None:
    await registered(kits)
    with (kits.root / "agentforge.toml").open("a") as file:
        file.write('\n[frameworks.kit]\npins = ["companion>=2"]\n')
    refused = await kits.run(kits.agent(requirements=["old"]), "x", "--on", "kit==1.1")
    error = refused["error"]
    assert error["code"] == "AF302", error
    (conflict,) = error["details"]["conflicts"]
    assert conflict["package"] == "companion"
    wanted = {(each["by"], each["wants"], each["because"]) for each in conflict["wanted"]}
    assert ("", "companion>=2", "`[frameworks.kit] pins` of the project") in wanted
    assert any(by.startswith("old") and wants == "companion<2" and "agent" in why for by, wants, why in wanted), wanted
    assert "`old`" in error["hint"]
    same = kits.agent("same", requirements=["kit<1.1"])
    error = (await kits.run(same, "x", "--on", "kit==1.1"))["error"]
    assert {each["because"] for each in error["details"]["conflicts"][0]["wanted"]} == {
        "the framework itself",
        "`requirements` of the agent",
    }, error
    nothing = kits.agent("nothing", requirements=["nowhere>=3"])
    error = (await kits.run(nothing, "x", "--on", "kit==1.1"))["error"]
    assert error["details"]["missing"], error
    assert "`requirements` of the agent" in error["message"]


async def test_local_packages_that_can_not_be_built_or_are_not_there_are_told(kits: Project) -> None:
    await registered(kits)
    library = write_library(kits.root / "agent/mylib", "one")
    (library / "backend.py").write_text("def build_wheel(*_, **__):\n    raise OSError('no glue left')\n")
    agent = kits.agent(requirements=["./mylib"])
    error = (await kits.run(agent, "x", "--on", "kit==1.1"))["error"]
    assert (error["code"], "no glue left" in error["message"]) == ("AF318", True), error
    for line, words in (("./gone", "does not exist"), ("-e ./mylib", "editable"), ("./tools", "pyproject.toml")):
        kits.write("agent/tools/x.py", "")
        error = (await kits.run(kits.agent(requirements=[line]), "x", "--on", "kit==1.1"))["error"]
        assert error["code"] == "AF104", error
        assert "agent.yaml:1:" in error["message"]
        assert words in error["message"]


@pytest.mark.feature("AF-002")
async def test_latest_is_the_newest_release_that_the_adapter_covers_and_a_version_is_that_version(
    kits: Project, index: LocalIndex
) -> None:
    await registered(kits)
    agent = kits.agent()
    latest = await kits.run(agent, "report", "--on", "kit", "--latest")
    assert latest["release"] == "1.1"  # 2.0 is beyond the adapter
    assert (await kits.run(agent, "report", "--on", "kit==1.0"))["release"] == "1.0"
    built = await kits.command("env", "build", "kit@1", "--latest", "--json")
    assert built.result["release"] == "1.1"
    for reference, code in (("kit==1.1", "AF201"), ("kit@7", "AF204")):
        done = await kits.command("env", "build", reference, "--latest")
        assert (done.code, code in done.err) == (1, True), done
    for reference, code in (("kit==1.7", "AF305"), ("kit==3.0", "AF204"), ("kit", "AF203")):
        assert (await kits.run(agent, "x", "--on", reference))["error"]["code"] == code
    away = {"UV_DEFAULT_INDEX": "http://127.0.0.1:1/simple", "AGENTFORGE_HOST": "inline"}
    await kits.stop()
    done = await kits.command("env", "build", "kit", "--latest", variables=away)
    assert "AF303" in done.err
    index.upload_times = False
    try:
        done = await kits.command("env", "build", "kit==1.0.0", variables={"AGENTFORGE_HOST": "inline"})
        assert done.code == 1
        assert "AF304" in done.err
    finally:
        index.upload_times = True


async def test_a_python_that_is_not_there_is_told(kits: Project) -> None:
    manifest = kits.root / "frameworks/kit/framework.toml"
    manifest.write_text(manifest.read_text().replace('python = ">=3.8"', 'python = "==3.6.1"'))
    await registered(kits)
    error = (await kits.run(kits.agent(), "x", "--on", "kit==1.1"))["error"]
    assert (error["code"], "3.6.1" in error["message"]) == ("AF306", True)


@pytest.mark.feature("AF-014")
async def test_a_deprecated_release_is_warned_of_and_refused_after_its_end(kits: Project) -> None:
    await registered(kits)
    agent = kits.agent(framework="kit==1.1")
    done = await kits.command(
        "framework", "deprecate", "kit@1", "--since", "2020-01-01", "--end", "2999-12-31", "--successor", "langchain",
        "--reason", "It juggles.", "--json",
    )  # fmt: skip
    assert done.code == 0, done
    warned = await kits.run(agent, "report")
    (warning,) = warned["warnings"]
    assert "deprecated since 2020-01-01" in warning
    assert "`langchain`" in warning
    kinds = [e["data"]["text"] for e in await kits.events(warned["run_id"]) if e["kind"] == "log.written"]
    assert warning in kinds
    built = await kits.command("env", "build", "kit==1.1")
    assert f"warning: {warning}" in built.err
    doctor = {each["check"]: each for each in (await kits.command("doctor", "--json")).objects}
    assert doctor["deprecated"]["state"] == "warning"
    assert "agent/agent.yaml" in doctor["deprecated"]["message"]
    listed = (await kits.command("framework", "deprecate", "--list", "--json")).objects
    (use,) = [use for each in listed for use in each["agents"]]
    assert (use["agent"], use["file"], use["runs"]) == ("agent", "agent/agent.yaml", 1)
    assert (await kits.command("framework", "show", "kit", "--json")).result["affected"] == [use]

    ended = await kits.command("framework", "deprecate", "kit@1", "--since", "2020-01-01", "--end", "2020-06-30")
    assert ended.code == 0
    refused = await kits.run(agent, "report")
    assert (refused["error"]["code"], refused["error"]["details"]["end"]) == ("AF208", "2020-06-30")
    assert "AF208" in (await kits.command("env", "build", "kit==1.1")).err
    assert (await kits.command("framework", "deprecate", "kit==1.1", "--since", "2020-01-01")).code == 0
    assert (await kits.run(agent, "report"))["warnings"]  # the more exact word counts
    for reference in ("kit==1.1", "kit@1"):
        assert (await kits.command("framework", "deprecate", reference, "--unset")).code == 0
    assert (await kits.run(agent, "report"))["warnings"] == []
    text = (kits.root / "agentforge.toml").read_text()
    assert "deprecated" not in text
    assert text.startswith("# ours\n[workers]\nidle_s = 60 # a minute\n")
    for wrong, code in (
        (("kit@1", "--unset"), "AF209"),
        (("kti",), "AF202"),
        (("kit", "--end", "2001-01-01"), "AF104"),
    ):
        done = await kits.command("framework", "deprecate", *wrong)
        assert (done.code, code in done.err) == (1, True), done


@pytest.mark.feature("AF-014")
async def test_an_adapter_deprecates_a_range_in_its_manifest(kits: Project) -> None:
    manifest = kits.root / "frameworks/kit/framework.toml"
    said = 'deprecated = { since = 2020-01-01, end = 2020-12-31, successor = "python" }\n'
    manifest.write_text(manifest.read_text() + said)
    await registered(kits)
    agent = kits.agent(framework="kit==1.1")
    refused = await kits.run(agent, "report")
    assert (refused["error"]["code"], refused["error"]["details"]["by"]) == ("AF208", "adapter")
    again = await kits.command("framework", "deprecate", "kit", "--since", "2020-01-01", "--end", "2999-01-01")
    assert again.code == 1  # `kit` has no tested release: only a series or a version names one
    again = await kits.command("framework", "deprecate", "kit@1", "--since", "2020-01-01", "--end", "2999-01-01")
    assert again.code == 0, again
    assert len((await kits.run(agent, "report"))["warnings"]) == 1


@pytest.mark.feature("AF-007")
async def test_frameworks_are_found_by_what_they_can_and_by_words(kits: Project) -> None:
    await registered(kits)

    async def found(*arguments: str) -> list[str]:
        return [each["name"] for each in (await kits.command("framework", "search", *arguments, "--json")).objects]

    assert await found("--with", "juggling") == ["kit"]
    assert await found("--with", "juggling", "--level", "full") == []
    assert {"kit", "langchain", "python"} <= set(await found("--with", "tools"))
    assert await found("three", "BALLS") == ["kit"]
    unknown = await kits.command("framework", "search", "--with", "jugling")
    assert (unknown.code, "AF207" in unknown.err, "`juggling`" in unknown.err) == (1, True, True)
    nothing = await kits.command("framework", "search", "no such words anywhere")
    assert (nothing.code, nothing.out.splitlines()[0].split()[0]) == (1, "NAME")


@pytest.mark.feature("AF-008")
async def test_releases_are_compared_and_what_was_not_measured_says_so(kits: Project) -> None:
    await registered(kits)
    done = await kits.command("framework", "compare", "kit==1.1", "python", "--json")
    compared = done.result
    assert [each["framework"] for each in compared["columns"]] == ["kit", "python"]
    assert [each["level"] for each in compared["capabilities"]["juggling"]] == ["partial", "absent"]
    assert set(compared["columns"][1]["measured"]) == {"size", "import", "memory", "overhead", "conformance"}
    from agentforge.store import Measurement, open_store

    await kits.stop()
    async with open_store(kits.root / ".agentforge/state.db") as store:
        share = Measurement("kit", "1.1", compared["machine"], "conformance", 12.5, "%", 1e9, "agentforge compat kit")
        await store.record_measurements([share, Measurement("kit", "1.1", "elsewhere", "overhead", 1, "ms", 1e9)])
    table = (await kits.command("framework", "compare", "kit==1.1", "python")).out
    (row,) = [line for line in table.splitlines() if line.startswith("conformance")]
    assert "12.5 %" in row
    assert "not measured here" in row
    (row,) = [line for line in table.splitlines() if line.startswith("overhead")]
    assert row.count("not measured here") == 2
    assert (await kits.command("framework", "compare", "kit==1.1", "pyhton")).code == 1


@pytest.mark.feature("AF-009")
@pytest.mark.feature("AF-010")
async def test_a_framework_shows_its_page_and_its_examples(kits: Project) -> None:
    folder = kits.root / "frameworks/kit/examples/hello"
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text(
        "name: hello\ndescription: Says hello.\ninstructions: Hi.\nframework: kit==1.1\n"
    )
    (folder / "input.txt").write_text("report\n")
    await registered(kits)
    page = await kits.command("framework", "docs", "kit")
    assert "How kit maps." in page.out
    assert "https://example.org/kit" in page.out
    assert (await kits.command("framework", "docs", "kit", "--json")).result["text"].startswith("# Kit")
    listed = (await kits.command("framework", "examples", "kit", "--json")).objects
    assert next((each["name"], each["kind"]) for each in listed) == ("hello", "portable")
    assert "expenses" in [each["name"] for each in listed]
    copied = await kits.command("framework", "examples", "kit", "--copy", "mine/hello")
    assert copied.code == 0, copied
    assert "agentforge run mine/hello" in copied.err
    assert (await kits.run("mine/hello", "report"))["status"] == "succeeded"
    taken = await kits.command("framework", "examples", "kit", "--copy", "mine/hello")
    assert taken.code == 2
    for place in ("/proc/x", "mine/hello/agent.yaml/x"):
        refused = await kits.command("framework", "examples", "kit", "--copy", place)
        assert (refused.code, f"`{place}" in refused.err, "can't be written: " in refused.err) == (2, True, True)
    unknown = await kits.command("framework", "examples", "kit", "nothing")
    assert "AF210" in unknown.err


@pytest.mark.feature("AF-001")
async def test_an_installed_package_offers_a_framework_without_being_imported(kits: Project, tmp_path: Path) -> None:
    site = tmp_path / "site"
    write_kit(site / "kit_frameworks" / "data" / "kit")
    (site / "kit_frameworks" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    info = site / "kit_frameworks-3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kit-frameworks\nVersion: 3.0\n")
    (info / "entry_points.txt").write_text(
        "[agentforge.frameworks]\nkit = kit_frameworks:data\nlost = kit_frameworks.nowhere\n"
    )
    inline = {"PYTHONPATH": str(site), "AGENTFORGE_HOST": "inline"}
    listed = {
        each["name"]: each for each in (await kits.command("framework", "list", "--json", variables=inline)).objects
    }
    assert listed["kit"]["origin"] == "kit-frameworks 3.0"
    assert "kit_frameworks.nowhere" in listed["lost"]["error"]["message"]
    built = await kits.command("env", "build", "kit==1.1", "--json", variables=inline)
    assert built.result["release"] == "1.1"


async def test_the_python_client_knows_the_catalogue(kits: Project) -> None:
    async with Forge(kits.root) as forge:
        assert await forge.register_framework(kits.root / "frameworks/kit") == ["kit"]
        assert (await forge.framework("kit"))["title"] == "Kit"
        assert [each["name"] for each in await forge.search_frameworks(capabilities=["juggling"])] == ["kit"]
        assert len((await forge.compare_frameworks("python==3.11", "kit==1.1"))["columns"]) == 2
        await forge.unregister_framework("kit")
        assert "kit" not in [each["name"] for each in await forge.frameworks()]
