"""Rehearsals of what operators go through, on one machine with real servers: ``make rehearse``.

They take minutes, some of them need root or programs that CI has no use for, and each prints what happened.
"""
