"""A run with everything that an export can hold, in a store; shared by the tests of runs that move."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from agentforge.engine.archive import MANIFEST, VERSION
from agentforge.engine.exported import LOCK
from agentforge.gateway import ModelResponse, request_hash
from agentforge.store import (
    BLOB_LIMIT,
    AgentVersion,
    AgentVersionId,
    Attempt,
    Effect,
    Event,
    Lease,
    ProjectId,
    Run,
    RunId,
    Store,
)

__all__ = ["GOLDEN", "HOME", "THREAD", "altered", "content_id", "keep_sample", "new_version", "parts_of", "repacked"]

GOLDEN = Path(__file__).parents[1] / "data" / "run-export-v1.zip"
"""An export of version 1 of the format: it must be readable for ever, so it is never written anew."""
HOME = ProjectId("/home/ada/expenses")
THREAD = "q3"
LOCK_TEXT = b"langchain==1.4.7 --hash=sha256:00\n"
TOOL_CODE = b'def total_for(category: str) -> float:\n    """Add up."""\n    return 1.5\n'
NOW = 1_763_800_000.25
LARGE = "\u00e4" * BLOB_LIMIT


def content_id(spec: Any, files: dict[str, bytes]) -> str:
    """Return a version's id as the engine makes it."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{hashlib.sha256(content).hexdigest()} {name}\n".encode())
    content = msgspec.json.encode({"spec": spec, "files": digest.hexdigest()}, order="sorted")
    return hashlib.sha256(content).hexdigest()


async def new_version(store: Store) -> AgentVersion:
    """Keep a version with a file and its lock."""
    files = {"agent.yaml": b"name: expenses\n", "lib/tools.py": TOOL_CODE}
    spec = {
        "agent": {"name": "expenses", "instructions": "Add.", "settings": {"temperature": 0.0}},
        "framework": "langchain",
        "release": "1.4.7",
        "lock": hashlib.sha256(LOCK_TEXT).hexdigest(),
        "adapter": "c" * 64,
        "python": "",
    }
    version = AgentVersion(
        id=AgentVersionId(content_id(spec, files)), name="expenses", spec=spec, created_at=NOW,
        files={name: await store.put_blob(data) for name, data in {**files, LOCK: LOCK_TEXT}.items()},
    )  # fmt: skip
    return await store.put_agent_version(version)


async def keep_sample(store: Store, lease: Lease, run_id: str = "r1", **fields: Any) -> Run:
    """Keep a run that failed, was rolled back and waits, in a thread after another run of it; return it."""
    version = await new_version(store)
    first = await _keep(store, lease, version, f"{run_id}-before")
    await store.finish_run(
        first.run_id, lease.epoch, {"status": "succeeded", "finished_at": NOW, "output": "hello"},
        messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
    )  # fmt: skip
    options = {
        "stream": True,
        "on": "langchain",
        "thread_seq": 2,
        "model": {"name": "default", "kind": "openai", "model": "gpt", "settings": {}},
        "interrupts": [{"kind": "tool", "message": "was under way", "id": "i1", "raised_at": NOW}],
    }
    run = await _keep(store, lease, version, run_id, options=options, labels={"team": "finance", "\u00fc": ""})
    await _keep_parts(store, run, lease.epoch)
    await store.update_run(run.run_id, lease.epoch, **{"status": "waiting", "started_at": NOW + 1, **fields})
    return await store.get_run(run.run_id)


async def _keep(store: Store, lease: Lease, version: AgentVersion, run_id: str, **fields: Any) -> Run:
    run = Run(
        run_id=RunId(run_id), project=lease.project, agent_name="expenses", agent_version=version.id,
        framework="langchain", release="1.4.7", environment="langchain-1.4.7-x", model="default", thread=THREAD,
        input={"question": "How much?", "odd": "\ud83d"}, lease_epoch=lease.epoch, created_at=NOW,
        submit_key=f"key-{run_id}", principal="ada",
        **fields,
    )  # fmt: skip
    return await store.create_run(run)


async def _keep_parts(store: Store, run: Run, epoch: int) -> None:
    await store.start_attempt(Attempt(run.run_id, 1, "w1", NOW), epoch)
    error = {"code": "AF402", "message": "gone", "hint": "", "origin": "worker"}
    await store.finish_attempt(run.run_id, 1, epoch, status="lost", finished_at=NOW + 1, error=error)
    await store.start_attempt(Attempt(run.run_id, 2, "w2", NOW + 1), epoch)
    for effect in _effects(run.run_id):
        event = Event(run.run_id, effect.position + 1, 1, "tool.returned", NOW, {"call_id": "x", "name": "a"})
        await store.append_effect(effect, epoch, [event])
    await store.void_effects(run.run_id, epoch, 2)
    await store.append_events(run.run_id, epoch, [Event(run.run_id, 9, 2, "log.written", NOW, {"text": LARGE})])


def _effects(run_id: RunId) -> list[Effect]:
    asked = [{"role": "user", "content": LARGE}]
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "\u00fc"}}]}
    record = ModelResponse(json.dumps(body).encode()).to_record()

    def effect(position: int, kind: Any, request: bytes, response: bytes, **more: Any) -> Effect:
        hashed = request_hash(kind, request.decode(errors="replace"))
        return Effect(
            run_id=run_id, position=position, attempt=1, kind=kind, request_hash=hashed, occurrence=0, request=request,
            response=response, status=200, started_at=NOW, duration_ms=12.5, **more,
        )  # fmt: skip

    spaces = b" " * BLOB_LIMIT
    return [
        effect(0, "model", json.dumps({"messages": asked}).encode(), record, usage={"input_tokens": 1}, cost_usd=0.25),
        effect(1, "tool", b'{"name":"total_for","arguments":{}}', b'{"value":1.5}'),
        effect(2, "value", b'{"kind":"now"}', b"\xff\x00 no text"),
        effect(3, "tool", b'{"name":"total_for","arguments":{"x":1}}', b'{"value":' + spaces + b"2}"),
    ]


def parts_of(data: bytes) -> dict[str, bytes]:
    """Return the entries of an export, the manifest too, without any check."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def repacked(parts: dict[str, bytes], *, version: Any = VERSION, **manifest: Any) -> bytes:
    """Return a file of these entries, its manifest right unless told otherwise."""
    entries = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        for name, data in parts.items()
        if name != MANIFEST
    }
    said = {"format": "agentforge-run", "version": version, "written_by": "test", "entries": entries, **manifest}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**parts, MANIFEST: json.dumps(said).encode()}.items():
            archive.writestr(name, data)
    return buffer.getvalue()


_odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def altered(draw: st.DrawFn, parts: dict[str, bytes]) -> bytes:
    """Return an export in which somebody has changed one value, its digests right."""
    name = draw(st.sampled_from(sorted(parts)))
    if name.startswith("blobs/"):
        return repacked({**parts, name: draw(st.binary(max_size=20))})
    lines = parts[name].splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    record = json.loads(lines[number])
    record[draw(st.sampled_from(sorted(record)))] = draw(_odd)
    lines[number] = json.dumps(record).encode()
    return repacked({**parts, name: b"\n".join(lines)})
