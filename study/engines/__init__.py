"""Ways to run a study: in this process, in Flower's Ray simulation, or in a real deployment.

Each engine takes a ServerApp main function and the hospitals, and brings them together; the server
and client code is the same in all of them.
"""
