#!/walk/busybox sh
# The guest's first program: moves the archive that it booted from into a tmpfs, and becomes systemd there. systemd mounts a
# root of its own for each confined unit, and no other root can take the place of the kernel's first one.
busybox=/walk/busybox
$busybox mkdir -p /new /proc /sys
$busybox mount -t proc proc /proc
for module in $($busybox cat /modules/order); do $busybox insmod /modules/$module; done
$busybox umount /proc
$busybox mount -t tmpfs -o size=95%,mode=755 root /new
for entry in /*; do
    case $entry in /new | /dev | /proc | /sys | /init) ;; *) $busybox cp -a $entry /new/ ;; esac
done
$busybox mkdir -p /new/dev /new/proc /new/sys
exec $busybox switch_root /new /sbin/init
