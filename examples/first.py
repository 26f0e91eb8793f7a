"""The first program: run it on one node, then on another."""

from openais import ckpt

with ckpt.Client() as client, client.open("greetings") as greetings:
    greetings["who"] = b"world"
    print(greetings["who"])
