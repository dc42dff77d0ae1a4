"""The sample agent as plain Python: native agents of this framework are functions of `input` and `ctx`."""

import asyncio
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


async def agent(input, ctx):
    """Answer a question about the expense report."""
    messages = [
        {"role": "system", "content": "You answer questions about the expense report. Use the tools."},
        {"role": "user", "content": input},
    ]
    while True:
        with ctx.step("model"):
            answer = (await ctx.chat(messages, model="default", tools=TOOLS, temperature=0.2))["choices"][0]["message"]
        messages.append(answer)
        calls = answer.get("tool_calls") or []
        if not calls:
            return answer["content"]
        messages += await asyncio.gather(*(answered(call, ctx) for call in calls))


def agent_that_blocks(input, ctx):
    """The same for code that blocks: the function gets a thread of its own and waits with `ctx.wait`."""
    return ctx.wait(agent(input, ctx))


async def answered(call, ctx):
    """Return the message that tells the model what a tool said."""
    arguments = json.loads(call["function"]["arguments"])
    value = await ctx.call_tool(call["function"]["name"], arguments)
    return {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(value)}
