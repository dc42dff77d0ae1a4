"""A LlamaIndex workflow, as its own documentation writes them: two steps, a typed event between them, a stream."""

from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step
from llama_index.llms.openai import OpenAI


class JokeEvent(Event):
    """A joke that was told."""

    joke: str


class ProgressEvent(Event):
    """A part of an answer."""

    msg: str


class JokeFlow(Workflow):
    """Tells a joke and looks at it critically."""

    llm = OpenAI(model="gpt-4.1-mini")

    @step
    async def generate_joke(self, ctx: Context, ev: StartEvent) -> JokeEvent:
        """Write a joke."""
        joke = ""
        async for part in await self.llm.astream_complete(f"Write your best joke about {ev.topic}."):
            ctx.write_event_to_stream(ProgressEvent(msg=part.delta or ""))
            joke = part.text
        return JokeEvent(joke=joke)

    @step
    async def critique_joke(self, ev: JokeEvent) -> StopEvent:
        """Say what is good and bad about it."""
        answer = await self.llm.acomplete(f"Give a thorough analysis and critique of the following joke: {ev.joke}")
        return StopEvent(result={"joke": ev.joke, "critique": str(answer)})


def make_workflow() -> JokeFlow:
    """Return the workflow."""
    return JokeFlow(timeout=60)
