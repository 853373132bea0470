#!/bin/sh
# Installs automx into a virtual environment of its own, or brings it up to date there.
#
#     contrib/setup-venv.sh [SOURCE [FOLDER]]
#
# SOURCE is a folder with the source, a wheel, a package ("automx", "automx==1.0.0") or the URL of
# one; default is the source that this script is part of. FOLDER is the virtual environment; default
# is /srv/automx. Settings from the environment:
#     EXTRAS    what else is needed, default postgresql,mysql; empty for SQLite alone
#     PYTHON    the interpreter, 3.11 or later, default python3
#     PIP_ARGS  options for "pip install", such as "--no-index --find-links /media/wheels"
# It may be run again at any time; restart the service afterwards.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
source=${1:-$here}
folder=${2:-/srv/automx}
python=${PYTHON:-python3}
extras=${EXTRAS-postgresql,mysql}

fail() {
    echo "$0: $*" >&2
    exit 1
}

case $source in
    -*) sed -n '2,/^set/s/^#\{0,1\} \{0,1\}//p' "$0" | sed '$d'; exit 2 ;;
esac
command -v "$python" >/dev/null || fail "$python is missing: install Python 3.11 or later"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" -V) is too old: set PYTHON to Python 3.11 or later"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make virtual environments: on Debian, install the package python3-venv"
case $("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
    /root/* | /home/*) echo "Note: a service cannot run a Python that is installed in a home folder" ;;
esac

# What pip is asked for: the source with its extras.
extras=${extras:+[$extras]}
if [ -f "$source/pyproject.toml" ]; then
    wanted=$(CDPATH='' cd -- "$source" && pwd)$extras
elif [ -f "$source" ]; then
    wanted=$source$extras
else
    case $source in
        *://*) wanted="automx$extras @ $source" ;;
        automx | automx[!A-Za-z0-9._/-]*) wanted="automx$extras${source#automx}" ;;
        *) fail "$source is not the source of automx, no wheel, and no package called automx" ;;
    esac
fi

# Everybody may read and run it, whatever the umask of the administrator.
umask 022
mkdir -p "$folder"
folder=$(CDPATH='' cd -- "$folder" && pwd -P)
# Root runs what is in the folder: nobody else may put a program there.
if [ "$(id -u)" -eq 0 ]; then
    path=$folder/bin/python
    while :; do
        if [ -e "$path" ] &&
            [ -n "$(find "$path" -prune \( ! -user 0 -o ! -type l -perm -002 ! -perm -1000 \))" ]; then
            fail "$path can be changed by another user: choose a folder of root's"
        fi
        [ "$path" != / ] || break
        path=$(dirname "$path")
    done
fi
if [ ! -x "$folder/bin/python" ]; then
    echo "Creating the virtual environment $folder"
    "$python" -m venv "$folder"
fi
again=
[ -x "$folder/bin/automx" ] && again=yes
echo "Installing $wanted"
# shellcheck disable=SC2086 # PIP_ARGS are several words
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade ${PIP_ARGS-} \
    "$wanted"
if [ -n "$again" ]; then # pip leaves a program alone whose version number is the same
    # shellcheck disable=SC2086
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check ${PIP_ARGS-} \
        --force-reinstall --no-deps "$wanted"
fi

if [ -n "$again" ]; then
    cat <<EOF
automx is up to date: $folder/bin/automx

What to do next, as root:
  systemctl restart automx
Without the unit automx.service, run "automx db upgrade" before you restart it.
EOF
    exit
fi
cat <<EOF
automx is installed: $folder/bin/automx

What to do next, as root; $here/docs/install.md explains it from step 2 on:
  1. Create its user:
       adduser --system --group --no-create-home --home /var/lib/automx automx
  2. Write the settings, if the defaults do not fit ($here/contrib/automx.conf explains them):
       install -D -m 640 -g automx $here/contrib/automx.conf /etc/automx/automx.conf
  3. Install and start the service:
       sed 's#/srv/automx/#$folder/#' $here/contrib/automx.service > /etc/systemd/system/automx.service
       systemctl daemon-reload && systemctl enable --now automx
  4. Add your domains, for example with $here/contrib/provider-sql.sh
  5. Put nginx, Apache or Caddy in front of it: see $here/contrib and docs/web-server.md
EOF
