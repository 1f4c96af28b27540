"""A model checker for the decisions of the cloud: our real code, in every order that the world allows.

`replay` runs the real code up to its next call to the outside. `programs` are the workers that run it:
git-tar, buildshiprun, garbage-collect. `world` is the rest: git, the queue, the gateway and its cluster, and
what can go wrong there. `search` tries every order of all their steps. The scenarios are in test_model.py.
"""
