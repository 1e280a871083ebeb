"""A thread whose stack is deep enough for compilers that recurse.

What a form leads on to is bounded before it is compiled (`actors.burden`); should a compiler go deeper for less than we
thought, this thread has room for all that a request's bytes can say. The stack is reserved, and used only when it is.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

STACK_BYTES = 512 * 2**20


def deep_thread(name: str) -> ThreadPoolExecutor:
    """One thread, which does one thing after the other."""
    made = ThreadPoolExecutor(1, name)
    before = threading.stack_size(STACK_BYTES)
    try:
        made.submit(int).result()  # it is started by what it has to do
    finally:
        threading.stack_size(before)
    return made
