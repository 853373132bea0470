"""Two providers in one database: what belongs to the second one is marked.

A key of the first provider must never show a mark: the word ``canary``, in any spelling, and ids
from 71000 to 71999. Ids of the first provider are higher, so that new rows of it get the same ids
whether the second one is there or not.
"""

import re

PROVIDER = 90001
MARK = re.compile(
    r"[\w.@:/-]*c(?:a|ä|%C3%A4|\\u00e4)nary[\w.@:/-]*|xn--cnary-[\w.]*|\b71\d{3}\b", re.IGNORECASE
)

OWN = """
INSERT INTO provider VALUES (90001, 'Own', 'Own'), (90002, 'Unused', 'Unused');
INSERT INTO provider_detail (provider_id, help_url) VALUES (90001, 'https://help.own.example/');
INSERT INTO ldapserver VALUES
  (90001, 'ldap.own.example', 389, 0, 'dc=own', '(mail={0})', 'uid', 'cn', 's3cret', 'cn=own'),
  (90002, 'ldap.gone.example', 389, 0, 'dc=gone', '(mail={0})', 'uid', 'cn', NULL, NULL);
INSERT INTO domain VALUES (90001, 'own.example', 90001, 90001),
  (90002, 'second.example', 90001, NULL), (90003, 'off.example', 90001, NULL),
  (90004, '*.own.example', 90001, 90001), (90005, 'gone.example', 90001, NULL);
INSERT INTO disabled_domain VALUES (90003, '2026-11-21 10:00:00');
INSERT INTO server VALUES
  (90001, 10, 'imap.own.example', 993, 'imap', 'SSL', '', 'plain'),
  (90002, 10, 'smtp.own.example', 465, 'smtp', 'SSL', '', 'plain'),
  (90003, 10, 'imap.shared.example', 993, 'imap', 'SSL', '', 'plain'),
  (90004, 10, 'imap.unused.example', 993, 'imap', 'SSL', '', 'plain'),
  (90005, 10, 'imap.gone.example', 993, 'imap', 'SSL', '', 'plain');
INSERT INTO davserver VALUES
  (90001, 'https://dav.own.example/', 0, 'caldav', 1, 0, NULL),
  (90002, 'https://dav.gone.example/', 0, 'caldav', 1, 0, NULL),
  (90003, 'https://dav.shared.example/', 0, 'caldav', 1, 0, NULL);
INSERT INTO server_domain VALUES (90001, 90001), (90002, 90001), (90003, 90001), (90005, 90001),
  (90001, 90002), (90001, 90003), (90003, 90004);
INSERT INTO davserver_domain VALUES (90001, 90001), (90002, 90001), (90003, 90001), (90003, 90004);
INSERT INTO token VALUES
  (90001, 'own', 'own-secret', 'digest-1', 'own.example', 'tmp.', NULL, '1d', 50, 1, NULL, 0, '', 0,
   '2026-11-21 10:00:00'),
  (90002, 'gone', 'gone-secret', 'digest-2', 'own.example', 'tmp.', NULL, '1d', 50, 0, NULL, 0, '',
   0, '2026-11-21 10:00:00');
INSERT INTO account VALUES
  (90001, 'guest@own.example', 90001, 'f00d', 'none', 'active', '2026-11-21 10:00:00', NULL,
   '2026-11-21 10:00:00', NULL),
  (90002, 'gone@own.example', 90001, 'f00d', 'none', 'active', '2026-11-21 10:00:00', NULL,
   '2026-11-21 10:00:00', NULL);
INSERT INTO audit VALUES (500, '2026-11-21 10:00:00', 'user:alice', 'set', 'domain', 'own.example',
  '{}');
"""

FOREIGN = """
INSERT INTO provider VALUES (71001, 'Canary Ltd', 'Canary');
INSERT INTO provider_detail (provider_id, help_url, webmail_url) VALUES
  (71001, 'https://help.canary.example/', 'https://webmail.canary.example/');
INSERT INTO documentation VALUES (71001, 71001, 'https://help.canary.example/', 'en', 'canary');
INSERT INTO ldapserver VALUES (71001, 'ldap.canary.example', 389, 0, 'dc=canary', '(mail={0})',
  'uid', 'cn', 'canary-password', 'cn=canary');
INSERT INTO domain VALUES (71001, 'canary.example', 71001, 71001),
  (71002, '*.canary-wild.example', 71001, NULL), (71003, 'Canary-Upper.EXAMPLE', 71001, 90001),
  (71004, 'cänary.example', 71001, NULL), (71005, 'off.canary.example', 71001, NULL),
  (71006, '*', 71001, NULL);
INSERT INTO disabled_domain VALUES (71005, '2026-11-21 10:00:00');
INSERT INTO server VALUES
  (71001, 10, 'imap.canary.example', 993, 'imap', 'SSL', '', 'plain'),
  (71002, 10, 'smtp.canary.example', 465, 'smtp', 'SSL', '', 'plain'),
  (71003, 10, 'unused.canary.example', 465, 'smtp', 'SSL', '', 'plain');
INSERT INTO davserver VALUES (71001, 'https://dav.canary.example/', 0, 'caldav', 1, 0, NULL);
INSERT INTO server_domain VALUES (71001, 71001), (71002, 71001), (90003, 71001), (71001, 71002),
  (71001, 71003), (71001, 71004), (71001, 71005), (71001, 71006);
INSERT INTO davserver_domain VALUES (71001, 71001), (90003, 71001);
INSERT INTO server_origin VALUES (71003, 'key:canary');
INSERT INTO domain_origin VALUES (71001, 'key:canary');
INSERT INTO token VALUES
  (71001, 'canary', 'canary-secret', 'digest-3', 'canary.example', 'tmp.', NULL, '1d', 50, 1, NULL,
   0, '', 0, '2026-11-21 10:00:00'),
  (71002, 'canary-bad', 'canary-bad-secret', 'digest-4', 'canary.example', 'tmp.', NULL,
   'bad canary', 50, 1, NULL, 0, '', 0, '2026-11-21 10:00:00');
INSERT INTO account VALUES
  (71001, 'guest@canary.example', 71001, 'f00d', 'none', 'active', '2026-11-21 10:00:00', NULL,
   '2026-11-21 10:00:00', NULL),
  (71002, 'bad@canary.example', 71001, 'f00d', 'none', 'bad canary', '2026-11-21 10:00:00', NULL,
   '2026-11-21 10:00:00', NULL),
  (71003, 'lost@canary.example', 71002, 'f00d', 'none', 'active', '2026-11-21 10:00:00', NULL,
   '2026-11-21 10:00:00', NULL);
INSERT INTO audit VALUES
  (499, '2026-11-21 10:00:00', 'key:canary', 'set', 'domain', 'canary.example', '{"id": 71001}');
"""
