"""How runs side by side are shown: as JSON lines, or as an answer or a table for people."""

import json
from typing import Any, Protocol

from agentforge.cli.output import print_json, print_text, say, say_failure
from agentforge.cli.progress import Progress
from agentforge.cli.waiting import say_waiting
from agentforge.config import embedded_notice
from agentforge.errors import ErrorInfo

__all__ = ["JsonShown", "Shown", "TextShown"]


class Shown(Protocol):
    """What is told of the runs while they go on; `progress` is set before the first call."""

    progress: Progress

    def event(self, event: Any) -> None:
        """Take an event of a run."""
        ...

    def result(self, result: dict[str, Any]) -> None:
        """Take the result of a run that ended."""
        ...

    def end(self, results: list[dict[str, Any]]) -> None:
        """Take all results, in the order in which the runs were asked for."""
        ...


class JsonShown:
    """One object a line; with `stream` each event as it comes, then the result."""

    def __init__(self, stream: bool = False) -> None:
        self._stream = stream
        self.progress: Progress

    def event(self, event: Any) -> None:
        if self._stream:
            print_json({"seq": event.seq, "kind": event.kind, "at": event.at, "data": dict(event.data)})

    def result(self, result: dict[str, Any]) -> None:
        print_json(result)

    def end(self, results: list[dict[str, Any]]) -> None:
        for result in results:
            if result["status"] == "waiting":
                say_waiting(result)


class TextShown:
    """The answer alone; for several runs (or if `table`) a table once all have ended."""

    def __init__(self, stream: bool = False, number: int = 1, *, table: bool = False) -> None:
        self._live = stream and number == 1
        self._table = table or number > 1
        self._text = _LiveText()
        self.progress: Progress

    def event(self, event: Any) -> None:
        if self._live and (text := self._text.shown(event)):
            self.progress.clear()
            print_text(text, end="")

    def result(self, result: dict[str, Any]) -> None:
        for warning in result.get("warnings") or []:
            self.progress.say(f"warning: {warning}")

    def end(self, results: list[dict[str, Any]]) -> None:
        if self._text.any:
            print_text("")
        if self._table:
            _print_table(results)
        elif results[0]["status"] == "succeeded" and not self._text.any:
            print_text(_as_text(results[0]["output"]))
        for result in results:
            if result["error"]:
                prefix = f"{result['framework']}: " if self._table else ""
                say_failure(ErrorInfo.from_dict(result["error"]), prefix)
            elif result["status"] == "waiting":
                say_waiting(result)
            elif result["status"] != "succeeded":
                say(f"run {result['run_id']} is {result['status']}")
        if any(result.get("model") == "local" for result in results):
            say(f"note: {embedded_notice()}")


class _LiveText:
    """The text of a run's answers as it comes, each part once.

    A new attempt asks again for the answer that was cut off. What has been printed of it is not printed again as long
    as the answer begins alike; else it begins on a new line.
    """

    def __init__(self) -> None:
        self.any = False
        """Whether any text was shown."""
        self._open = ""
        """What has come of an answer that is not complete."""
        self._owed = ""
        """What an earlier attempt has shown of it."""

    def shown(self, event: Any) -> str:
        """Return what is to be printed on account of an event."""
        if event.kind == "attempt.started":
            self._open, self._owed = "", self._owed or self._open
        elif event.kind in ("model.responded", "model.failed"):
            self._open = self._owed = ""
        elif event.kind == "message.delta":
            return self._delta(str(event.data.get("text", "")))
        return ""

    def _delta(self, text: str) -> str:
        self.any = True
        before, self._open = self._open, self._open + text
        if not self._owed:
            return text
        if self._owed.startswith(self._open):
            return ""
        owed, self._owed = self._owed, ""
        return self._open.removeprefix(owed) if self._open.startswith(owed) else f"\n{before}{text}"


def _print_table(results: list[dict[str, Any]]) -> None:
    from agentforge.cli.tables import results_table

    results_table(results)


def _as_text(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False)
