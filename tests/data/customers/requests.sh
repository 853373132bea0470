#!/bin/sh
# Sets up three customers, from nothing, by the API: the key is in $KEY, $API is the address, such
# as http://127.0.0.1:4243/api/v1. The folder of this file has the logo.
set -eu
cd "$(dirname "$0")"
answer=$(mktemp)
trap 'rm "$answer"' EXIT

send() {  # METHOD PATH JSON, or @- for JSON on standard input: prints the id of a new row
  location=$(curl --silent --show-error --fail-with-body --max-time 60 --output "$answer" \
    --write-out '%header{location}' --request "$1" --header "Authorization: Bearer $KEY" \
    --header 'Content-Type: application/json' --data-binary "${3-}" "$API/$2") || {
    cat "$answer" >&2
    exit 1
  }
  echo "${location##*/}"
}
add() { send POST "$1" "$2"; }
change() { send PATCH "$1" "$2" >/dev/null; }
remove() { send DELETE "$1" >/dev/null; }

# A company with mail servers of its own: two ways of submission, POP3, calendars, and a page for
# people. One of its domains is not in use yet.
logo=$(base64 -w0 logo.svg)
provider=$(add providers @- <<END
{"name": "Müller & Söhne GmbH", "short_name": "Müller", "details": {
  "webmail_url": "https://webmail.muller.example/", "help_url": "https://help.muller.example/",
  "support_address": "help@muller.example", "color": "#1a5fb4",
  "logo": {"type": "image/svg+xml", "width": 8, "height": 8, "data": "$logo"},
  "documentation": [
    {"url": "https://help.muller.example/mail", "lang": "en", "text": "Set up your mail program"},
    {"url": "https://help.muller.example/de/mail", "lang": "de", "text": "E-Mail einrichten"}]}}
END
)
imap=$(add servers '{"type": "imap", "name": "imap.muller.example"}')
pop=$(add servers '{"type": "pop3", "name": "imap.muller.example", "prio": 20}')
smtp=$(add servers '{"type": "smtp", "name": "smtp.muller.example"}')
smtp2=$(add servers '{"type": "smtp", "name": "smtp.muller.example", "port": 587, "prio": 20}')
sieve=$(add servers '{"type": "managesieve", "name": "imap.muller.example"}')
caldav=$(add services '{"type": "caldav", "url": "https://dav.muller.example/cal/%EMAILADDRESS%/"}')
carddav=$(add services '{"type": "carddav", "url": "https://dav.muller.example/card/", "port": 8443}')
all='"provider": '$provider', "servers": ['$imap', '$pop', '$smtp', '$smtp2', '$sieve'],
  "davservers": ['$caldav', '$carddav']'
add bulk/domains '{"names": ["müller.example", "mueller.example"], '"$all"'}' >/dev/null
add domains '{"name": "soon.example", '"$all"'}' >/dev/null
change domains/soon.example '{"disabled": true}'

# A school whose people have login names in a directory, and which logs in by OAuth2; each of its
# classes has a domain below the school's.
provider=$(add providers '{"name": "School of Nordheim", "short_name": "Nordheim",
  "details": {"oauth2": {"issuer": "https://login.nordheim.example",
    "auth_url": "https://login.nordheim.example/authorize",
    "token_url": "https://login.nordheim.example/token",
    "scope": "mail offline_access", "client_id": "mail-clients"}}}')
directory=$(add directories '{"name": "ldap.nordheim.example", "port": 636, "use_ssl": true,
  "search_base": "ou=people,dc=nordheim;ou=staff,dc=nordheim", "login_name": "NORD\\{uid}",
  "bind_user": "cn=automx,dc=nordheim", "bind_password": "s3cret: keep it"}')
imap=$(add servers '{"type": "imap", "name": "mail.nordheim.example", "authentication": "OAuth2 plain"}')
smtp=$(add servers '{"type": "smtp", "name": "mail.nordheim.example", "authentication": "OAuth2 plain"}')
for domain in nordheim.example '*.nordheim.example'; do
  add domains '{"name": "'"$domain"'", "provider": '"$provider"', "ldapserver_id": '"$directory"',
    "servers": ['"$imap"', '"$smtp"']}' >/dev/null
done

# A club that has moved from a server without encryption to another one, and has renamed itself.
provider=$(add providers '{"name": "Chess Club"}')
old=$(add servers '{"type": "imap", "name": "old.club.example", "port": 143, "socket_type": "plain"}')
smtp=$(add servers '{"type": "smtp", "name": "old.club.example", "port": 25, "socket_type": "plain"}')
add bulk/domains '{"names": ["club.example", "chess.example"], "provider": '"$provider"',
  "servers": ['"$old"', '"$smtp"']}' >/dev/null
change servers/"$smtp" '{"name": "smtp.club.example", "port": 587}'
imap=$(add servers '{"type": "imap", "name": "imap.club.example", "user_name": "%EMAILLOCALPART%"}')
change domains/club.example '{"servers": ['"$old"', '"$smtp"', '"$imap"']}'
change domains/chess.example '{"servers": ['"$imap"', '"$smtp"']}'
change domains/club.example '{"servers": ['"$imap"', '"$smtp"']}'
remove servers/"$old"
change servers/"$smtp" '{"socket_type": "STARTTLS"}'
change providers/"$provider" '{"name": "Chess and Go Club", "short_name": "Chess & Go"}'
