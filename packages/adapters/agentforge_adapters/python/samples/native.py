"""The sample agent as a function with a tool of its own, which a later attempt of a run does not call again."""

import json

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two whole numbers.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    }
]


def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


async def agent(input, ctx):
    """Answer a question."""
    messages = [{"role": "user", "content": input}]
    while True:
        answer = (await ctx.chat(messages, model="default", tools=TOOLS))["choices"][0]["message"]
        messages.append(answer)
        calls = answer.get("tool_calls") or []
        if not calls:
            return answer["content"]
        for call in calls:
            arguments = json.loads(call["function"]["arguments"])
            value = await ctx.tool_effect("add", arguments, lambda arguments=arguments: add(**arguments))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(value)})
