"""Rehearsals of operators' work, on one machine with real servers: ``make rehearse``.

They take minutes, some of them need root or programs that CI does not need, and each prints what happened.
"""
