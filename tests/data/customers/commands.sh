#!/bin/sh
# Sets up three customers, from nothing, by commands. The folder of this file has the logo.
set -eu
cd "$(dirname "$0")"

# A company with mail servers of its own: two ways of submission, POP3, calendars, and a page for
# people. One of its domains is not in use yet.
automx provider add --name 'Müller & Söhne GmbH' --short-name Müller \
  --webmail-url https://webmail.muller.example/ --help-url https://help.muller.example/ \
  --support-address help@muller.example --color '#1a5fb4' --logo logo.svg \
  --documentation 'https://help.muller.example/mail en Set up your mail program' \
  --documentation 'https://help.muller.example/de/mail de E-Mail einrichten'
automx server add --type imap --name imap.muller.example
automx server add --type pop3 --name imap.muller.example --prio 20
automx server add --type smtp --name smtp.muller.example
automx server add --type smtp --name smtp.muller.example --port 587 --prio 20
automx server add --type managesieve --name imap.muller.example
automx service add --type caldav --url https://dav.muller.example/cal/%EMAILADDRESS%/
automx service add --type carddav --url https://dav.muller.example/card/ --port 8443
automx domain add müller.example mueller.example --provider Müller \
  --server imap.muller.example:993 --server imap.muller.example:995 \
  --server imap.muller.example:4190 --server smtp.muller.example:465 \
  --server smtp.muller.example:587 \
  --service https://dav.muller.example/cal/%EMAILADDRESS%/ \
  --service https://dav.muller.example/card/
automx domain add soon.example --like müller.example
automx domain disable soon.example

# A school whose people have login names in a directory, and which logs in by OAuth2; each of its
# classes has a domain below the school's.
automx provider add --name 'School of Nordheim' --short-name Nordheim \
  --oauth2-issuer https://login.nordheim.example \
  --oauth2-auth-url https://login.nordheim.example/authorize \
  --oauth2-token-url https://login.nordheim.example/token \
  --oauth2-scope 'mail offline_access' --oauth2-client-id mail-clients
automx directory add --name ldap.nordheim.example --port 636 --use-ssl \
  --search-base 'ou=people,dc=nordheim;ou=staff,dc=nordheim' --login-name 'NORD\{uid}' \
  --bind-user cn=automx,dc=nordheim --bind-password-stdin <<END
s3cret: keep it
END
automx server add --type imap --name mail.nordheim.example --authentication 'OAuth2 plain'
automx server add --type smtp --name mail.nordheim.example --authentication 'OAuth2 plain'
automx domain add nordheim.example '*.nordheim.example' --provider Nordheim \
  --directory ldap.nordheim.example \
  --server mail.nordheim.example:993 --server mail.nordheim.example:465

# A club that has moved from a server without encryption to another one, and has renamed itself.
automx provider add --name 'Chess Club'
automx server add --type imap --name old.club.example --port 143 --socket-type plain
automx server add --type smtp --name old.club.example --port 25 --socket-type plain
automx domain add club.example chess.example --provider 'Chess Club' \
  --server old.club.example:143 --server old.club.example:25
automx server set old.club.example:25 --name smtp.club.example --port 587 --yes
automx server add --type imap --name imap.club.example --user-name '%EMAILLOCALPART%'
automx domain link club.example imap.club.example
automx domain set chess.example --server imap.club.example --server smtp.club.example
automx domain unlink club.example old.club.example
automx server del old.club.example
automx server set smtp.club.example --socket-type STARTTLS --yes
automx provider set 'Chess Club' --name 'Chess and Go Club' --short-name 'Chess & Go' --yes
