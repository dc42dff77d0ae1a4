"""The table that runs side by side end with."""

from typing import Any

from agentforge.cli.output import shorten

__all__ = ["results_table"]


def results_table(results: list[dict[str, Any]]) -> None:
    """Print answer, tool calls, tokens and time of each result on stdout."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("framework", no_wrap=True)
    for name in ("status", "answer", "tool calls"):
        table.add_column(name)
    table.add_column("tokens", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for result in results:
        answer = (
            str(result["output"]) if result["status"] == "succeeded" else (result["error"] or {}).get("message", "")
        )
        usage = result["usage"]
        duration = result["duration_ms"]
        table.add_row(
            Text(f"{result['framework']} {result['release'] or ''}"),
            Text(str(result["status"])),
            Text(shorten(str(answer), 300)),
            Text("\n".join(map(_call, result["tool_calls"]))),
            Text(f"{usage['input_tokens']} + {usage['output_tokens']}"),
            Text(f"{duration / 1000:.2f} s" if duration is not None else "-"),
        )
    Console(highlight=False).print(table)


def _call(call: dict[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value!r}" for key, value in call["arguments"].items())
    ending = f" → {call['result']}" if "result" in call else f" failed: {call.get('error')}"
    return shorten(f"{call['name']}({arguments}){ending}", 120)
