"""Accounts: the rules by which tokens become mailboxes, and mailboxes end."""
