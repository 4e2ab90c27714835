"""The process that worker processes are forked from: torch is imported once a pod.

`__main__` serves the agent's orders, `script` turns a child into the user's program, `safety`
says whether forking is safe, `identity` makes a child look like what it runs. Everything here
runs in the user's interpreter, in one thread.
"""
