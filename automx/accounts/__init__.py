"""Accounts: the rules by which tokens make mailboxes, and mailboxes expire.

A backend makes and deletes a mailbox. That takes seconds and may fail, so each call of a backend
stands between two transactions. The state of the row says before the call what may exist, so that
``automx prune`` can finish the work of a program that was killed:

- ``creating``: a use of the token is claimed, the mailbox may exist; its password is not known.
- ``active``: the mailbox exists. ``disabled``: it exists, and logins are refused. ``disabling``: it
  exists, and logins have to be refused; they may be already.
- ``undoing``: the mailbox could not be made; it may exist and has to be deleted, the use has been
  given back.
- ``deleting``: the mailbox has to be deleted, and then the row.
"""
