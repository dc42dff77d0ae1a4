"""Blocking code beside the loop: each call gets a daemon thread of its own, so one that hangs holds no other back."""

import asyncio
import contextvars
import threading
from typing import Any, Callable, Optional

__all__ = ["run_in_thread"]


async def run_in_thread(context: contextvars.Context, call: Callable[[], Any], name: str) -> Any:
    """Return what `call` returns, or raise what it raises. A cancelled wait leaves the thread to end by itself."""
    loop = asyncio.get_running_loop()
    done: "asyncio.Future[Any]" = loop.create_future()

    def settle(value: Any, error: Optional[BaseException]) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def work() -> None:
        value, failure = None, None
        try:
            value = context.run(call)
        except StopIteration as error:  # a future refuses it; nobody means it as a signal here
            failure = RuntimeError(repr(error))
        except SystemExit as error:  # on the loop it would end the process
            failure = RuntimeError("sys.exit(%r) was called" % (error.code,)).with_traceback(error.__traceback__)
        except BaseException as error:
            failure = error  # type: ignore[assignment]
        try:
            loop.call_soon_threadsafe(settle, value, failure)
        except RuntimeError:
            pass  # the loop has ended

    threading.Thread(target=work, name=name, daemon=True).start()
    return await done
