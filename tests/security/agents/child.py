"""What a child run does that an attacker starts, itself or by its tool: read a file, connect to a port of the host."""

import os
import socket


def look(path: str = "", port: int = 0, variable: str = "") -> str:
    """Look at a file, a port of the host or an environment variable."""
    if variable:
        return os.environ.get(variable, "not there")
    return agent({"connect": port} if port else {"read": path}, None)


def agent(given, ctx):
    if "connect" in given:
        with socket.create_connection(("127.0.0.1", given["connect"]), timeout=2) as connection:
            return connection.recv(4096).decode()
    path = given["read"]
    with open(path if path.startswith("/") else os.path.join(os.path.dirname(__file__), path)) as file:
        return file.read()
