#!/bin/busybox sh
# A guest's first process: loads what its disks need, and goes on from the disk.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/ttyS1 2>&1
while read -r module; do
    insmod "/modules/$module" || echo "$module cannot be loaded"
done </modules/order
# The drivers find their disks in their own time.
while [ ! -b /dev/vda ] || [ ! -b /dev/vdb ]; do sleep 0.1; done
mount -t ext4 /dev/vda /system || exec poweroff -f
cp /runs /system/ebb/runs
umount -l /dev
exec switch_root /system /bin/busybox sh /ebb/init
