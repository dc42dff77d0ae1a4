"""An agent that gives its run token away."""


def agent(given, ctx):
    return ctx.token
