"""Running code that a model wrote: once, in a sandbox of its own, with nothing but a folder.

Two processes. `supervise` keeps what the code prints within bounds, stops it in time and reports to the host; `cell`
is what runs it. Neither has a connection, a token or a secret, and the host believes nothing of what they say: the
code can do whatever it likes to both.
"""
