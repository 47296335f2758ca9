# Part of deb-postinst and rpm-post, after the function's name: the new build takes the running one's place.
#
# No connection is refused. `dotd upgrade` ends with 3 where no dotd serves and with 4 where this build cannot take over from the one that
# serves: systemd restarts it then. A build that fails for another reason would fail at a restart too, and the old one continues to serve.
take_over() {
    systemctl --quiet is-active dotd.service || return 0
    # An earlier build had its pins elsewhere: the new one takes them along. Where it cannot be mounted, they stay there.
    systemctl start run-dotd.bpf.mount || echo "dotd: /run/dotd.bpf was not mounted (above)" >&2
    status=0
    dotd upgrade || status=$?
    case $status in
    0) ;;
    # The package is installed all the same: its script must not end here, nor without a word.
    3 | 4) systemctl try-restart dotd.service || echo "dotd: the new build did not start: journalctl -u dotd says why" >&2 ;;
    *) echo "dotd: the old build continues to serve (reason above). Repair that, then run: dotd upgrade" >&2 ;;
    esac
}
