"""The same in plain Python: for attacks that end their worker, which is started anew for the next."""

from attacks.batch import attack_all


def agent(given, ctx):
    return attack_all(given)
