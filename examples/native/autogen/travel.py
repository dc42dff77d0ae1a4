"""An AutoGen group chat, as its own documentation writes them: one agent has a tool, the other one reviews."""

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_ext.models.openai import OpenAIChatCompletionClient


async def get_weather(city: str) -> str:
    """Get the weather for a given city."""
    return f"The weather in {city} is 23 degrees and sunny."


def make_team() -> RoundRobinGroupChat:
    """Return the team."""
    model_client = OpenAIChatCompletionClient(model="gpt-4o-mini")
    guide = AssistantAgent(
        "guide",
        model_client=model_client,
        tools=[get_weather],
        system_message="You plan days out. Look at the weather first.",
        reflect_on_tool_use=True,
        model_client_stream=True,
    )
    critic = AssistantAgent(
        "critic",
        model_client=model_client,
        system_message="Provide constructive feedback. Respond with 'APPROVE' when your feedback is addressed.",
        model_client_stream=True,
    )
    termination = TextMentionTermination("APPROVE", sources=["critic"]) | MaxMessageTermination(10)
    return RoundRobinGroupChat([guide, critic], termination_condition=termination)
