"""Look-up of people in LDAP directories that may be slow, broken or hostile.

Standards: RFC 4511 (protocol), RFC 4515 (filters), RFC 4513 (StartTLS). ``row`` knows what a row
of the table ``ldapserver`` says, ``connection`` talks to one host, ``hoststate`` remembers which of
its addresses answer, ``ldap`` asks all hosts of a directory within a time, and ``pool`` remembers
what all directories said.
"""
