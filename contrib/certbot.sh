#!/bin/sh
# Gets and renews the certificates of automx by certbot, for all names that lead to this machine.
#
#     apt-get install certbot && certbot register
#     install contrib/certbot.sh /usr/local/sbin/automx-certbot && automx-certbot
#
# automx-certbot.timer runs it each day. Port 80 of each name must lead to the folder WEBROOT, as
# nginx.conf and apache.conf have it. The certificates are /etc/letsencrypt/live/automx-1, which has
# the public host and the first 33 domains, automx-2 and so on.
#
# A domain that is new, disabled or deleted, or whose names lead here since the last run, changes one
# certificate. If the database does not answer, or DNS has no address of the public host, all stay as
# they are. What is set below can be set in /etc/default/automx-certbot.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # cron's has none of them
: "${AUTOMX:=runuser -u automx -- env STATE_DIRECTORY=/var/lib/automx /srv/automx/bin/automx}"
: "${NAMES:=--all --resolving}"              # or: --all --resolving --dns 9.9.9.9
: "${WEBROOT:=/var/www/html}"                # the folder of nginx.conf and apache.conf
: "${DEPLOY_HOOK:=systemctl reload nginx}"   # after a certificate was made
: "${CERTBOT:=certbot}"                      # with options that all calls shall have

certificates=$(mktemp)
trap 'rm -f "$certificates"' EXIT
# shellcheck disable=SC2086 # words of a command
$AUTOMX names --format certbot $NAMES >"$certificates"

# certbot runs as root, and has options that run programs: automx names hosts and nothing else.
host='[a-z0-9][a-z0-9.-]*'
if LC_ALL=C grep -Evqx -e "(--cert-name automx-[0-9]+ )?-d $host( -d $host)*" "$certificates"; then
    echo "automx-certbot: automx has printed other things than names: nothing is done" >&2
    exit 1
fi

status=0
while IFS= read -r arguments; do
    # shellcheck disable=SC2086 # names, of which none has a blank
    $CERTBOT certonly --non-interactive --keep-until-expiring --renew-with-new-domains \
        --webroot --webroot-path "$WEBROOT" --deploy-hook "$DEPLOY_HOOK" $arguments </dev/null &&
        continue
    status=1
    # A name that the authority refuses must not keep the others from being renewed: what the
    # certificate has by now is renewed when it is due, without such names.
    case $arguments in
    --cert-name\ *)
        name=${arguments#* }
        $CERTBOT renew --non-interactive --cert-name "${name%% *}" --allow-subset-of-names \
            --deploy-hook "$DEPLOY_HOOK" </dev/null || :
        ;;
    esac
done <"$certificates"
exit "$status"
