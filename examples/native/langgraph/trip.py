"""A LangGraph graph, as its own documentation writes them: a loop of a model and its tools, and a step after it."""

from langchain_core.messages import SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

FARES = {"Rome": 89.0, "Oslo": 129.5, "Lisbon": 104.0}


@tool
def fare(city: str) -> float:
    """Return the price of a flight to a city, in euros."""
    return FARES.get(city, 250.0)


@tool
def book(city: str) -> str:
    """Book a flight to a city."""
    return f"booked: {city}, {FARES.get(city, 250.0)} euros"


tools = [fare, book]
model = ChatOpenAI(model="gpt-4.1-mini")


def travel_agent(state: MessagesState) -> dict:
    """Look up fares and book a flight."""
    asked = [SystemMessage("You book the cheapest flight that fits. Look up its fare first."), *state["messages"]]
    return {"messages": [model.bind_tools(tools).invoke(asked)]}


def editor(state: MessagesState) -> dict:
    """Put what was done into one friendly sentence."""
    asked = [SystemMessage("Say in one friendly sentence what was booked."), *state["messages"]]
    return {"messages": [model.invoke(asked)]}


def wants_tools(state: MessagesState) -> str:
    """Say where to go after the travel agent."""
    return "tools" if state["messages"][-1].tool_calls else "editor"


builder = StateGraph(MessagesState)
builder.add_node(travel_agent)
builder.add_node("tools", ToolNode(tools))
builder.add_node(editor)
builder.add_edge(START, "travel_agent")
builder.add_conditional_edges("travel_agent", wants_tools, ["tools", "editor"])
builder.add_edge("tools", "travel_agent")
builder.add_edge("editor", END)
graph = builder.compile()
