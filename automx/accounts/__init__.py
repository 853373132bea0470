"""Accounts: the rules by which tokens become mailboxes, and mailboxes end.

A mailbox is made and deleted by a backend, over a network and perhaps in vain; so each step that
a backend takes part in stands between two transactions, and what a row says before it is enough to
bring things in order if the program ends in the middle:

- ``creating``: the use of the token is claimed, the mailbox may exist; nobody has its password.
- ``active``: the mailbox exists. ``disabled``: it exists, and nobody can log in.
- ``undoing``: making it failed; it may exist and has to go, the use has been given back.
- ``deleting``: it has to go; the row goes with it.
"""
