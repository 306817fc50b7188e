# A guest's first process from the disk on: mounts what a machine has, runs what it is told, switches off.
# tracefs is not mounted: nothing may need it.
# The processor is emulated: what tests expect of its speed is divided by EBB_SLOWDOWN.
export PATH=/bin HOME=/ TMPDIR=/scratch EBB_PARITY_DISK=/scratch EBB_SLOWDOWN=25
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/ttyS1 2>&1
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t ext4 /dev/vdb /scratch
ip link set lo up
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
# The kernel patches its own code when the first cgroup comes and the last one goes, the first quota, the first account
# of what probes cost; the emulation may stumble over each. So there is always one of them, as where a system runs.
echo 1 >/proc/sys/kernel/bpf_stats_enabled
mkdir /sys/fs/cgroup/kept
echo "100000 100000" >/sys/fs/cgroup/kept/cpu.max
cd /scratch || exec poweroff -f

# The pulse: in the kernel's log, of each process its name and what its threads wait for. Only what the shell does
# itself, so that it takes next to nothing from what is measured.
pulse() {
    for process in /proc/[0-9]*; do
        [ -e "$process/exe" ] || continue
        read -r line <"$process/comm" || continue
        for thread in "$process"/task/*; do
            waits=
            read -r waits <"$thread/wchan"
            line="$line $waits"
        done
        echo "<0>pulse: ${process#/proc/} $line" >/dev/kmsg
    done
} 2>/dev/null
while pulse; do sleep 10; done &

# run NAME PROGRAM ARGUMENT...: the output between two lines that the host looks for.
run() {
    name=$1
    shift
    echo "@@ebb begin $name"
    "$@"
    code=$?
    # The program may have left its last line open.
    echo
    echo "@@ebb end $name $code"
}

. /ebb/runs
echo "@@ebb off"
sync
exec poweroff -f
