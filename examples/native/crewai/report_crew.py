"""A crew of a researcher and a writer, written as CrewAI's own docs do it. Nothing here knows of AgentForge."""

from crewai import Agent, Crew, Process, Task
from crewai.tools import tool

NOTES = {
    "tides": "The moon's pull raises two bulges of water; the earth turns below them.",
    "rainbows": "Each drop bends red light by 42 degrees and violet light by 40.",
}


@tool("Look up notes")
def look_up_notes(topic: str) -> str:
    """Return the notes that we have on a topic."""
    return NOTES.get(topic.strip().lower(), "There are no notes on this topic.")


@tool("Count words")
def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


def make_crew() -> Crew:
    """Return the crew: the writer gets what the researcher has found."""
    researcher = Agent(
        role="Researcher",
        goal="Find what our notes say about {input}",
        backstory="You never state what you have not looked up.",
        tools=[look_up_notes],
    )
    writer = Agent(
        role="Writer",
        goal="Write short reports on {input}",
        backstory="You write plainly and keep to the number of words you are given.",
        tools=[count_words],
    )
    research = Task(
        description="Look up what our notes say about {input}.",
        expected_output="The facts, one in a line.",
        agent=researcher,
    )
    report = Task(
        description="Write a report on {input} of at most 30 words, and count them.",
        expected_output="The report.",
        agent=writer,
        context=[research],
    )
    return Crew(agents=[researcher, writer], tasks=[research, report], process=Process.sequential)
