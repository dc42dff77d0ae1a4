"""A neighbour: asks its model once, through its own door."""


async def agent(given, ctx):
    answer = await ctx.chat([{"role": "user", "content": "hello"}])
    return answer["choices"][0]["message"]["content"] or "answered"
