"""What happened outside of AgentForge: requests that reached the model, lines that tools wrote."""

import json
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from agentforge_conformance.scripted_model import RecordedRequest, ScriptedModel

__all__ = ["Line", "Requests", "ToolLog"]

_LABEL = re.compile(rb"order-\d{6}")


@dataclass(frozen=True)
class Line:
    """One call of a tool."""

    run: str
    step: int
    idempotency_key: str
    pid: int
    tool: str
    at: float


class ToolLog:
    """The tools' file, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken: list[str] = []
        self._lines: dict[str, list[Line]] = defaultdict(list)
        self._rest = b""
        path.touch()
        self._file = path.open("rb")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def of(self, run: str, step: int | None = None) -> list[Line]:
        """Return the lines of a run (and of one of its steps) so far."""
        self._read()
        return [line for line in self._lines.get(run, ()) if step in (None, line.step)]

    def keys(self) -> dict[str, set[tuple[str, int]]]:
        """Return the calls that each idempotency key was given to."""
        self._read()
        found: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for lines in self._lines.values():
            for line in lines:
                found[line.idempotency_key].add((line.run, line.step))
        return found

    def _read(self) -> None:
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        for each in whole:
            try:
                line = Line(**json.loads(each))
            except (ValueError, TypeError):
                self.broken.append(each.decode(errors="replace"))
            else:
                self._lines[line.run].append(line)


class Requests:
    """The model's requests by run and step, read from the endpoint as they come."""

    def __init__(self, model: ScriptedModel) -> None:
        self.strange: list[str] = []
        """Requests of no run, or of more than one."""
        self._model = model
        self._seen = 0
        self._by_run: dict[str, list[tuple[int, RecordedRequest]]] = defaultdict(list)
        self._offset = time.time() - time.monotonic()

    def of(self, run: str, step: int | None = None) -> list[tuple[int, float]]:
        """Return (step, time) of the requests of a run so far, in order."""
        self._read()
        return [
            (number, request.at + self._offset)
            for number, request in self._by_run.get(run, ())
            if step in (None, number)
        ]

    def answered(self, run: str, step: int) -> bool:
        """Whether a request of this step has got its answer."""
        self._read()
        return any(request.status for number, request in self._by_run.get(run, ()) if number == step)

    def _read(self) -> None:
        for request in self._model.requests[self._seen :]:
            self._seen += 1
            labels = {found.decode() for found in _LABEL.findall(request.body)}
            if len(labels) != 1:
                self.strange.append(f"a request holds the labels {sorted(labels)}")
                continue
            step = 1 + sum(message.get("role") == "assistant" for message in request.json["messages"])
            self._by_run[labels.pop()].append((step, request))
