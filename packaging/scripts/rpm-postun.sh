# After the files went. Keys and state stay: they are the operator's. rpm calls it with sh.
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
exit 0
