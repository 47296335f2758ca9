# Usage: sh -c "$(cat this)" NAME POLICY COMMAND [ARGUMENT...]
#
# Runs COMMAND while the file POLICY (Debian: /usr/sbin/policy-rc.d) refuses every service start with
# status 101, as Debian's policy asks. Whatever was at POLICY before is back afterwards: after success,
# failure, Ctrl-C, TERM and a closed terminal. After a KILL the next run heals it.
set -eu
policy=$1
shift
kept=$policy.kept-by-dotd-setup
mark='# dotd setup: temporary'

restore() {
    if [ -e "$kept" ] || [ -L "$kept" ]; then
        mv -f "$kept" "$policy"
    elif grep -qs "$mark" "$policy"; then
        rm -f "$policy"
    fi
}

restore
trap restore EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
if [ -e "$policy" ] || [ -L "$policy" ]; then
    mv "$policy" "$kept"
fi
printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy.new-by-dotd-setup"
chmod 755 "$policy.new-by-dotd-setup"
mv "$policy.new-by-dotd-setup" "$policy"
"$@"
