#!/bin/sh
# Prints the SQL that adds one provider with its domains and servers to a database of automx.
#
#     contrib/provider-sql.sh | sqlite3 /var/lib/automx/automx.sqlite
#     contrib/provider-sql.sh postgresql | psql automx
#     contrib/provider-sql.sh mysql | mariadb automx
#
# Change the values below, or give them in the environment. The database must exist already
# ("automx db upgrade") and may hold other providers; ids are counted on from all that rows have or
# refer to. All rows are added, or none: a domain that is there already, for example, stops it.
set -eu

PROVIDER_NAME=${PROVIDER_NAME-"Example Inc."}
PROVIDER_SHORT_NAME=${PROVIDER_SHORT_NAME-${PROVIDER_NAME%% *}}

# The mail domains, separated by blanks; *.example.com stands for all domains below.
DOMAINS=${DOMAINS-"example.com example.net"}

# Host names, or host:port, separated by blanks, the preferred one first; empty for none. Ports 993,
# 995 and 465 mean TLS from the beginning, any other one STARTTLS.
IMAP_HOSTS=${IMAP_HOSTS-"mail.example.com:993"}
POP_HOSTS=${POP_HOSTS-""}
SMTP_HOSTS=${SMTP_HOSTS-"mail.example.com:465 mail.example.com:587"}

# Full URLs of calendars and address books, separated by blanks.
CALDAV_URLS=${CALDAV_URLS-""}
CARDDAV_URLS=${CARDDAV_URLS-""}

# How people log in: %EMAILADDRESS%, %EMAILLOCALPART% or %EMAILDOMAIN%.
USER_NAME=${USER_NAME-"%EMAILADDRESS%"}
AUTHENTICATION=${AUTHENTICATION-"plain"}

dialect=${1-sqlite}

# Prints its argument as an SQL string.
quoted() {
    printf "'%s'" "$(printf %s "$1" | sed "s/'/''/g")"
}

# Prints what a new row is selected from: the ids of a table, and those that other rows refer to. A
# row that refers to a deleted one would take a new row with its id for that one.
ids() {
    case $1 in
        provider) others='domain.provider_id provider_detail.provider_id documentation.provider_id' ;;
        domain) others='server_domain.domain_id davserver_domain.domain_id' ;;
        *) others=$1_domain.$1_id ;;
    esac
    printf 'FROM (SELECT 0 AS id UNION ALL SELECT id FROM %s' "$1"
    for other in $others; do
        printf ' UNION ALL SELECT %s FROM %s' "${other#*.}" "${other%.*}"
    done
    printf ') AS used'
}

# Prints the statement that links the row added last to the domains of this provider.
link_domains() {
    cat <<SQL
INSERT INTO $1_domain ($1_id, domain_id)
  SELECT (SELECT MAX(id) FROM $1), id FROM domain WHERE provider_id = (SELECT MAX(id) FROM provider);
SQL
}

# Prints the statements for the servers of one type: type, default port, hosts.
mail_servers() {
    prio=10
    for host in $3; do
        port=${host##*:}
        [ "$port" = "$host" ] && port=$2
        case $port in
            *[!0-9]* | "") echo "$0: $host: the port must be a number" >&2; exit 1 ;;
            993 | 995 | 465) socket_type=SSL ;;
            *) socket_type=STARTTLS ;;
        esac
        cat <<SQL
INSERT INTO server (id, prio, name, port, type, socket_type, user_name, authentication)
  SELECT MAX(id + 0) + 1, $prio, $(quoted "${host%:"$port"}"), $port, '$1', '$socket_type',
         $(quoted "$USER_NAME"), $(quoted "$AUTHENTICATION")
  $(ids server);
SQL
        link_domains server
        prio=$((prio + 10))
    done
}

# Prints the statements for the DAV servers of one type: type, URLs.
dav_servers() {
    for url in $2; do
        case $url in
            https://?*) port=443 use_ssl=TRUE ;;
            http://?*) port=80 use_ssl=FALSE ;;
            *) echo "$0: $url: the URL must begin with https:// or http://" >&2; exit 1 ;;
        esac
        authority=${url#*://}
        authority=${authority%%/*}
        case $authority in
            *:*[!0-9]* | *:) ;;
            *:*) port=${authority##*:} ;;
        esac
        cat <<SQL
INSERT INTO davserver (id, url, port, type, use_ssl, domain_required, user_name)
  SELECT MAX(id + 0) + 1, $(quoted "$url"), $port, '$1', $use_ssl, FALSE,
         $(quoted "$USER_NAME")
  $(ids davserver);
SQL
        link_domains davserver
    done
}

print_all() {
    cat <<SQL
INSERT INTO provider (id, name, short_name)
  SELECT MAX(id + 0) + 1, $(quoted "$PROVIDER_NAME"), $(quoted "$PROVIDER_SHORT_NAME")
  $(ids provider);
SQL
    for domain in $DOMAINS; do
        cat <<SQL
INSERT INTO domain (id, name, provider_id, ldapserver_id)
  SELECT MAX(id + 0) + 1, $(quoted "$domain"), (SELECT MAX(id) FROM provider), NULL
  $(ids domain);
SQL
    done
    mail_servers imap 993 "$IMAP_HOSTS"
    mail_servers pop 995 "$POP_HOSTS"
    mail_servers smtp 465 "$SMTP_HOSTS"
    dav_servers caldav "$CALDAV_URLS"
    dav_servers carddav "$CARDDAV_URLS"
}

set -f # a domain such as *.example.com is no file name pattern
sql=$(print_all)
case $dialect in
    sqlite)
        printf '.bail on\nPRAGMA foreign_keys = ON;\nBEGIN IMMEDIATE;\n%s\nCOMMIT;\n' "$sql"
        ;;
    postgresql)
        printf '\\set ON_ERROR_STOP on\nSET standard_conforming_strings = on;\n'
        printf 'BEGIN ISOLATION LEVEL SERIALIZABLE;\n%s\n' "$sql"
        # Rows that are added without an id later on must not collide with those above.
        for table in provider domain server davserver; do
            echo "SELECT setval(pg_get_serial_sequence('$table', 'id'), MAX(id)) FROM $table" \
                "HAVING MAX(id) IS NOT NULL;"
        done
        echo 'COMMIT;'
        ;;
    mysql)
        printf "SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES');\n"
        printf 'START TRANSACTION;\n%s\nCOMMIT;\n' "$sql"
        ;;
    *)
        echo "usage: $0 [sqlite|postgresql|mysql]" >&2
        exit 2
        ;;
esac
