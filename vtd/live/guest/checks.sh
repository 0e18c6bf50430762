# Checks of the guest that need no more than a shell: drivers, file systems, hot-plug, sleep.

CHECKS=/bin/checks

say() { echo "note: $*"; }
ok() { echo "check: $* ok"; }
failed() { name=$1; shift; echo "check: $name FAILED: $*"; }
skipped() { name=$1; shift; echo "check: $name skipped: $*"; }

# verdict NAME COMMAND...: ok if the command succeeds
verdict() {
	name=$1
	shift
	if output=$("$@" 2>&1); then ok "$name"; else failed "$name" "$(echo "$output" | tail -1)"; fi
}

functions_of() { # functions of a vendor and device
	for path in /sys/bus/pci/devices/*; do
		[ "$(cat "$path/vendor" "$path/device" | tr -d '\n')" = "$1$2" ] && basename "$path"
	done
}
edus() { functions_of 0x1234 0x11e8; }
disks() { for path in /sys/block/nvme*; do [ -b "/dev/${path##*/}" ] && basename "$path"; done; }
disk_function() { basename "$(readlink -f "/sys/block/$1/device/device")"; }

wait_for_devices() {
	for _ in $(seq 50); do
		[ -z "$(ls /sys/class/nvme 2>/dev/null)" ] && return
		[ "$(ls /sys/class/nvme | wc -l)" = "$(disks | wc -l)" ] && return
		usleep 100000
	done
}

bind() { # FUNCTION DRIVER
	echo "$2" >"/sys/bus/pci/devices/$1/driver_override"
	[ -e "/sys/bus/pci/devices/$1/driver" ] && echo "$1" >"/sys/bus/pci/devices/$1/driver/unbind"
	echo "$1" >/sys/bus/pci/drivers_probe
	[ -e "/sys/bus/pci/drivers/$2/$1" ]
}

# The units are used, and functions are in groups.
check_units() {
	units=$(ls /sys/class/iommu 2>/dev/null | wc -l)
	if [ "$units" = "${1:-1}" ]; then ok "units"; else failed "units" "$units instead of ${1:-1}"; fi
	for device in $(edus) $(for disk in $(disks); do disk_function "$disk"; done); do
		group=$(readlink "/sys/bus/pci/devices/$device/iommu_group")
		[ -n "$group" ] || { failed "groups" "$device has none"; continue; }
		say "$device group $(basename "$group") type $(cat "/sys/kernel/iommu_groups/$(basename "$group")/type")"
	done
}

# The kernel does not use the units: without them everything else works all the same.
check_unused() {
	units=$(ls /sys/class/iommu 2>/dev/null | wc -l)
	if [ "$units" = 0 ]; then ok "units unused"; else failed "units unused" "$units are used"; fi
}

# What interrupt remapping does: MODE is xapic, x2apic or off
check_remapping() {
	case $1 in
	off) dmesg | grep -q 'Enabled IRQ remapping' && failed "interrupt remapping" "is on" && return ;;
	*) if ! dmesg | grep -q "Enabled IRQ remapping in $1 mode"; then
		failed "interrupt remapping" "$(dmesg | grep -iE 'remapping' | tail -1)"
		return
	fi ;;
	esac
	ok "interrupt remapping $1"
}

pattern() { # SEED KIB: the same bytes for the same seed
	yes "$1 the quick brown fox $1" | head -c $(($2 * 1024))
}

write_and_verify() { # DISK PLACE-IN-KIB KIB BLOCK
	pattern "$2" "$3" >"/tmp/data.$2"
	dd if="/tmp/data.$2" of="/dev/$1" bs="$4" seek=$(($2 * 1024 / $4)) conv=notrunc oflag=direct 2>/dev/null ||
		return 1
	dd if="/dev/$1" bs="$4" skip=$(($2 * 1024 / $4)) count=$(($3 * 1024 / $4)) iflag=direct 2>/dev/null |
		cmp -s - "/tmp/data.$2" || { echo "$3 KiB at $2 KiB with blocks of $4 differ"; return 1; }
	rm "/tmp/data.$2"
}

check_nvme() { # [every]: with every size of blocks that a command can have
	[ -n "$(disks)" ] || { failed "nvme" "no disk"; return; }
	sizes="512 4096 65536 131072 524288"
	[ "$1" = every ] && sizes="$sizes 1024 2048 8192 16384 32768 262144"
	for disk in $(disks); do
		for block in $sizes; do
			verdict "nvme $disk $block" write_and_verify "$disk" 0 512 "$block"
		done
		for job in 1 2 3 4; do
			write_and_verify "$disk" $((job * 512)) 256 4096 >"/tmp/job.$job" 2>&1 || echo failed >>"/tmp/job.$job" &
		done
		wait
		if [ -s /tmp/job.1 ] || [ -s /tmp/job.2 ] || [ -s /tmp/job.3 ] || [ -s /tmp/job.4 ]; then
			failed "nvme $disk processes" "$(cat /tmp/job.* | head -1)"
		else
			ok "nvme $disk processes"
		fi
	done
}

check_filesystem() {
	disk=$(disks | head -1)
	[ -n "$disk" ] || { skipped "filesystem" "no disk"; return; }
	grep -q ext4 /proc/filesystems || { skipped "filesystem" "no ext4 module"; return; }
	verdict "mkfs" mke2fs -F "/dev/$disk"
	verdict "mount" mount -t ext4 "/dev/$disk" /mnt
	for file in 1 2 3; do pattern "$file" 200 >"/mnt/$file"; done
	umount /mnt
	echo 3 >/proc/sys/vm/drop_caches
	verdict "mount again" mount -t ext4 "/dev/$disk" /mnt
	for file in 1 2 3; do
		pattern "$file" 200 | cmp -s - "/mnt/$file" || failed "filesystem" "file $file differs"
	done
	umount /mnt && ok "filesystem"
}

alive() { # the disk of a function works
	for _ in $(seq 100); do
		for disk in $(disks); do
			[ "$(disk_function "$disk")" = "$1" ] && write_and_verify "$disk" 0 64 4096 && return
		done
		usleep 100000
	done
	echo "$1 has no disk that works"
	return 1
}

check_rebind() {
	for disk in $(disks); do
		function=$(disk_function "$disk")
		for _ in 1 2 3; do
			echo "$function" >/sys/bus/pci/drivers/nvme/unbind
			echo "$function" >/sys/bus/pci/drivers/nvme/bind
			alive "$function" >/dev/null || break # the driver gives up if it is unbound while it begins
		done
		verdict "rebind $function" alive "$function"
	done
}

check_rescan() {
	for disk in $(disks); do
		function=$(disk_function "$disk")
		for _ in 1 2; do
			echo 1 >"/sys/bus/pci/devices/$function/remove"
			echo 1 >/sys/bus/pci/rescan
			alive "$function" >/dev/null || break
		done
		verdict "remove and rescan $function" alive "$function"
	done
}

check_reset() {
	for disk in $(disks); do
		function=$(disk_function "$disk")
		path=/sys/bus/pci/devices/$function
		[ -e "$path/reset" ] || { skipped "reset $function" "it can't be reset"; continue; }
		say "$function resets by $(cat "$path/reset_method" 2>/dev/null)"
		verdict "reset $function" eval "echo 1 >$path/reset"
		verdict "after the reset $function" alive "$function"
	done
}

check_cpus() {
	[ -e /sys/devices/system/cpu/cpu1/online ] || { skipped "cpu hot-plug" "one processor"; return; }
	for _ in 1 2 3; do
		for state in 0 1; do
			echo $state >/sys/devices/system/cpu/cpu1/online || { failed "cpu hot-plug" "state $state"; return; }
			for disk in $(disks); do alive "$(disk_function "$disk")" >/tmp/said || { failed "cpu hot-plug" "$(cat /tmp/said)"; return; }; done
		done
	done
	ok "cpu hot-plug"
}

# Suspend as far as pm_test lets it come: the units are saved and programmed again.
check_suspend() {
	[ -e /sys/power/pm_test ] || { skipped "suspend" "no pm_test"; return; }
	for level in devices core; do
		echo $level >/sys/power/pm_test
		verdict "suspend to $level" eval 'echo mem >/sys/power/state'
		for disk in $(disks); do verdict "after suspend to $level" alive "$(disk_function "$disk")"; done
	done
	echo none >/sys/power/pm_test
}

# Groups change the type of their domain while no driver holds the device.
check_domain_types() {
	for disk in $(disks); do
		function=$(disk_function "$disk")
		type=$(readlink -f "/sys/bus/pci/devices/$function/iommu_group")/type
		[ -e "$type" ] || { failed "domain type" "$function has no group"; continue; }
		before=$(cat "$type")
		for wanted in identity DMA DMA-FQ identity "$before"; do
			echo "$function" >/sys/bus/pci/drivers/nvme/unbind
			if ! echo "$wanted" >"$type" 2>/tmp/said; then
				say "$function: $wanted: $(tail -1 /tmp/said)"
				[ "$wanted" = identity ] || failed "domain type $wanted" "refused"
			elif [ "$(cat "$type")" != "$wanted" ]; then
				failed "domain type $wanted" "is $(cat "$type")"
			fi
			echo "$function" >/sys/bus/pci/drivers/nvme/bind
			verdict "domain type $(cat "$type")" alive "$function"
		done
	done
}

check_vfio() {
	[ -x $CHECKS ] || { skipped "vfio" "no C compiler on the host"; return; }
	[ -n "$(edus)" ] || { skipped "vfio" "no edu device"; return; }
	for function in $(edus); do
		bind "$function" vfio-pci || { failed "vfio" "$function does not bind"; return; }
	done
	$CHECKS vfio $(edus)
	for function in $(edus); do
		$CHECKS again "$function"
	done
	for function in $(edus); do # and back
		echo "$function" >/sys/bus/pci/drivers/vfio-pci/unbind
		bind "$function" vfio-pci || failed "vfio" "$function does not bind again"
	done
}

one_edu() { # COMMAND [ARGUMENT]: with the first edu device
	[ -x $CHECKS ] || { skipped "vfio $1" "no C compiler on the host"; return; }
	function=$(edus | head -1)
	[ -n "$function" ] || { skipped "vfio $1" "no edu device"; return; }
	bind "$function" vfio-pci || { failed "vfio $1" "$function does not bind"; return; }
	command=$1
	shift
	$CHECKS "$command" "$function" "$@"
}
check_intx() { one_edu intx; }
check_traffic() { one_edu traffic "/dev/$(disks | head -1)"; }

# Interrupts that nobody programmed; the kernel prints few lines at a time, so it gets a rest before.
check_provoke() {
	sleep 6
	one_edu provoke
	sleep 1
	dmesg | grep -q 'Enabled IRQ remapping' || return
	if dmesg | grep -q 'INTR-REMAP.*fault reason'; then
		ok "provoked interrupts are reported"
	else
		failed "provoked interrupts are reported" "no line of the kernel"
	fi
}

# A DMA to an address where nothing is, by the registers of an edu device: where no IOMMU of Linux is in the way.
check_stray() {
	function=$(edus | head -1)
	[ -n "$function" ] || { skipped "stray DMA" "no edu device"; return; }
	device=/sys/bus/pci/devices/$function
	echo 1 >"$device/enable"
	printf '\006' | dd of="$device/config" bs=1 seek=4 conv=notrunc 2>/dev/null # memory, bus master
	read -r bar _ <"$device/resource"
	for word in 80:0x40000 88:0x90000000 90:64 98:3; do # from the device, to, how much, start
		devmem $((bar + 0x${word%:*})) 64 "${word#*:}" || { failed "stray DMA" "registers can't be written"; return; }
	done
	ok "stray DMA"
}

# A virtio disk whose driver has agreed to map what it hands over (feature 33), so that the unit sees it.
check_virtio() {
	device=$(ls /sys/bus/virtio/devices 2>/dev/null | head -1)
	[ -b /dev/vda ] || { failed "virtio" "no disk"; return; }
	verdict "virtio ACCESS_PLATFORM" [ "$(cut -c34 "/sys/bus/virtio/devices/$device/features")" = 1 ]
	for block in 512 4096 65536 524288; do
		verdict "virtio vda $block" write_and_verify vda 0 512 "$block"
	done
	for job in 1 2 3 4; do
		write_and_verify vda $((job * 512)) 256 4096 >"/tmp/job.$job" 2>&1 || echo failed >>"/tmp/job.$job" &
	done
	wait
	verdict "virtio processes" [ -z "$(cat /tmp/job.*)" ]
	echo "$device" >/sys/bus/virtio/drivers/virtio_blk/unbind
	echo "$device" >/sys/bus/virtio/drivers/virtio_blk/bind
	verdict "virtio rebind" write_and_verify vda 0 64 4096
}

# Copy engines: the driver copies something itself each time before it offers a channel.
check_ioat() {
	engines=$(functions_of 0x8086 0x2021)
	[ -n "$engines" ] || { failed "ioat" "no engine"; return; }
	for turn in first second third; do
		if [ -e /sys/class/dma/dma0chan0 ] && ! dmesg | grep -q "ioatdma.*[Ss]elf-test"; then
			ok "ioat $turn probe"
		else
			failed "ioat $turn probe" "$(dmesg | grep ioatdma | tail -1)"
		fi
		for engine in $engines; do bind "$engine" ioatdma || failed "ioat" "$engine does not bind again"; done
	done
	say "channels: $(ls /sys/class/dma | tr '\n' ' ')"
}

# A work queue of an accelerator for user processes, by their own addresses, with so many thousand descriptors;
# the driver loads where the kernel is told that the processor has the 64-byte store, which no check here uses.
check_sva() {
	[ -x $CHECKS ] || { skipped "sva" "no C compiler on the host"; return; }
	[ -n "$(functions_of 0x8086 0x0b25)" ] || { failed "sva" "no accelerator"; return; }
	device=/sys/bus/dsa/devices/dsa0
	[ -e "$device" ] || { skipped "sva" "$(dmesg | grep -i idxd | tail -1)"; return; }
	echo 0 >"$device/engine0.0/group_id"
	for setting in group_id=0 mode=dedicated size=16 priority=10 block_on_fault=1 max_batch_size=1024 \
		type=user name=check driver_name=user; do
		echo "${setting#*=}" >"$device/wq0.0/${setting%%=*}" || say "${setting%%=*} is refused"
	done
	echo dsa0 >/sys/bus/dsa/drivers/idxd/bind || { failed "sva" "device: $(dmesg | tail -1)"; return; }
	echo wq0.0 >/sys/bus/dsa/drivers/user/bind || { failed "sva" "queue: $(dmesg | tail -1)"; return; }
	others=
	for turn in first second; do
		$CHECKS sva /dev/dsa/wq0.0 "${1:-3}" || failed "sva" "$turn process"
		for _ in 1 2 3 4; do # which take the tables of the first, so that the second has others
			sleep 1000 & others="$others $!"
		done
	done
	kill $others
	echo wq0.0 >/sys/bus/dsa/drivers/user/unbind
	echo dsa0 >/sys/bus/dsa/drivers/idxd/unbind
}

check_counters() {
	[ -x $CHECKS ] || { skipped "counters" "no C compiler on the host"; return; }
	units=$(ls -d /sys/bus/event_source/devices/dmar* 2>/dev/null)
	if [ -z "$units" ] && ! grep -q iommu_pmu_register /proc/kallsyms; then
		skipped "counters" "the kernel has no driver for them"
		return
	fi
	[ -n "$units" ] || { failed "counters" "no event source dmar0"; return; }
	for unit in $units; do
		for event in iommu_requests iotlb_lookup; do
			[ -e "$unit/events/$event" ] || continue
			set -- $(tr ',' '\n' <"$unit/events/$event" | sed -n 's/^event_group=//p; s/^event=//p')
			(usleep 300000; for disk in $(disks); do alive "$(disk_function "$disk")"; done) >/dev/null 2>&1 &
			value=$($CHECKS count "$(cat "$unit/type")" $(($1 << 28 | $2)) 0 2 2>&1)
			wait
			say "$(basename "$unit") $event $value"
			if [ "${value:-0}" -gt 0 ] 2>/dev/null; then ok "counter $event"; else failed "counter $event" "$value"; fi
		done
	done
}

# The network interface of DRIVER reaches the host at 10.0.0.1, before and after the driver's self-tests.
check_network() {
	[ -e "/modules/$1.ko" ] || { skipped "network" "no module $1"; return; }
	interface=$(ls /sys/bus/pci/drivers/"$1"/*/net 2>/dev/null | head -1)
	[ -n "$interface" ] || { failed "network" "$1 has no interface"; return; }
	ip link set "$interface" mtu 9000 up
	ip addr add 10.0.0.2/24 dev "$interface"
	verdict "network link" carrier "$interface"
	for size in 56 1400 8000; do
		verdict "network ping of $size" ping -q -c 3 -i 0.2 -s "$size" 10.0.0.1
	done
	[ "$1" = igb ] || return
	[ -x $CHECKS ] || { skipped "network self-test" "no C compiler on the host"; return; }
	$CHECKS self-test "$interface"
	verdict "network link after it" carrier "$interface"
	verdict "network ping after it" ping -q -c 3 -i 0.2 10.0.0.1
}

# 64 MiB by TCP from one interface of igb to another, each in a network of its own
check_network_tcp() {
	[ -e /modules/igb.ko ] || { skipped "network tcp" "no module igb"; return; }
	set -- $(ls -d /sys/bus/pci/drivers/igb/*/net/* 2>/dev/null)
	[ $# = 2 ] || { failed "network tcp" "$# interfaces instead of 2"; return; }
	near=${1##*/} far=${2##*/}
	unshare -n sleep 3600 &
	other=$!
	inside() { nsenter -t $other -n "$@"; }
	until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do usleep 100000; done
	verdict "network of its own" ip link set "$far" netns $other
	inside ip link set "$far" up
	inside ip addr add 10.0.1.2/24 dev "$far"
	ip link set "$near" up
	ip addr add 10.0.1.1/24 dev "$near"
	verdict "network link" carrier "$near"
	for _ in $(seq 30); do ping -q -c 1 -W 1 10.0.1.2 >/dev/null 2>&1 && break; done
	verdict "network ping" ping -q -c 3 -i 0.2 10.0.1.2
	head -c 67108864 /dev/urandom >/tmp/sent
	mkfifo /tmp/open
	exec 9<>/tmp/open # nc ends its half of a connection when its input does
	inside nc -l -p 5000 <&9 >/tmp/received &
	receiver=$!
	until inside netstat -ltn | grep -q :5000; do usleep 100000; done
	while sleep 10; do say "$(($(stat -c %s /tmp/received) >> 20)) MiB have arrived"; done &
	reporter=$!
	nc 10.0.1.2 5000 </tmp/sent
	wait $receiver
	kill $reporter $other
	exec 9>&-
	sent=$(md5sum </tmp/sent)
	say "$(cat "/sys/class/net/$near/statistics/tx_bytes") bytes sent, MD5 of the file $sent"
	received=$(md5sum </tmp/received)
	if [ "$sent" = "$received" ]; then ok "network tcp"; else failed "network tcp" "MD5 $received"; fi
	rm /tmp/sent /tmp/received /tmp/open
}

# ethtool DRIVER: what the program of that name says, its tests included
check_ethtool() {
	[ -x /bin/ethtool ] || { skipped "ethtool" "not fetched: vtd live fetch"; return; }
	interface=$(ls /sys/bus/pci/drivers/"$1"/*/net 2>/dev/null | head -1)
	[ -n "$interface" ] || { failed "ethtool" "$1 has no interface"; return; }
	for asked in "" -i -k -l -g -c -S -n; do
		verdict "ethtool ${asked:-link}" ethtool $asked "$interface"
	done
	ethtool -t "$interface" offline >/tmp/tests 2>&1
	code=$?
	while read -r line; do say "ethtool -t: $line"; done </tmp/tests
	if [ $code = 0 ]; then ok "ethtool -t offline"; else failed "ethtool -t offline" "exit code $code"; fi
	verdict "ethtool link after it" carrier "$interface"
}

# A secondary controller is given queues and vectors by the primary one, goes online and is a disk; offline
# again it is none.
check_nvme_virtual() {
	[ -x /bin/nvme ] || { skipped "nvme virtual" "not fetched: vtd live fetch"; return; }
	primary=$(disk_function "$(disks | head -1)")
	virtual=$(functions_of 0x1b36 0x0010 | grep -v "$primary")
	[ -n "$virtual" ] || { failed "nvme virtual" "no second function"; return; }
	controller=/dev/$(ls "/sys/bus/pci/devices/$primary/nvme")
	manage() { nvme virt-mgmt "$controller" --cntlid=1 "$@"; }
	verdict "nvme list-secondary" nvme list-secondary "$controller"
	verdict "nvme queues" manage --rt=0 --nr=2 --act=8
	verdict "nvme vectors" manage --rt=1 --nr=2 --act=8
	verdict "nvme online" manage --act=9
	verdict "nvme virtual function" bind "$virtual" nvme
	wait_for_devices
	disk=$(ls "/sys/bus/pci/devices/$virtual/nvme/"*/ 2>/dev/null | grep -E '^nvme[0-9]+n1$')
	[ -n "$disk" ] || { failed "nvme virtual disk" "none"; return; }
	for block in 512 4096 131072; do
		verdict "nvme virtual $block" write_and_verify "$disk" 4096 512 "$block"
	done
	verdict "nvme id-ctrl" nvme id-ctrl "/dev/$disk"
	verdict "nvme smart-log" nvme smart-log "$controller"
	echo "$virtual" >/sys/bus/pci/drivers/nvme/unbind
	verdict "nvme offline" manage --act=7
	bind "$virtual" nvme
	wait_for_devices
	if ls -d "/sys/bus/pci/devices/$virtual/nvme/"*/nvme*n1 >/dev/null 2>&1; then
		failed "nvme virtual offline" "it is a disk still"
	else
		ok "nvme virtual offline"
	fi
}

# What was flushed, 2 MiB in pieces, and what was not, another 2 MiB; the host takes the power away.
FLUSHED_AT=1024 LOOSE_AT=8192
check_write_until_cut() {
	for disk in $(disks); do
		for piece in $(seq 0 31); do
			pattern "$piece" 64 | dd of="/dev/$disk" bs=65536 seek=$((FLUSHED_AT / 64 + piece)) conv=notrunc,fsync 2>/dev/null ||
				failed "write $disk" "piece $piece"
		done
		pattern loose 2048 >/tmp/loose
		dd if=/tmp/loose of="/dev/$disk" bs=65536 seek=$((LOOSE_AT / 64)) conv=notrunc oflag=direct 2>/dev/null ||
			failed "write $disk" "without a flush"
		ok "write $disk until the power fails"
	done
	for disk in $(disks); do (while :; do write_and_verify "$disk" 16384 256 4096; done) >/dev/null 2>&1 & done
	say "the power fails"
	sleep 60
	failed "power" "is still there"
}

check_after_cut() {
	for disk in $(disks); do
		for piece in $(seq 0 31); do
			pattern "$piece" 64 >/tmp/piece
			dd if="/dev/$disk" bs=65536 skip=$((FLUSHED_AT / 64 + piece)) count=1 iflag=direct 2>/dev/null |
				cmp -s - /tmp/piece || { failed "$disk keeps what was flushed" "piece $piece differs"; continue 2; }
		done
		ok "$disk keeps what was flushed"
		pattern loose 2048 >/tmp/loose
		kept=0 lost=0 torn=0
		dd if="/dev/$disk" of=/tmp/found bs=65536 skip=$((LOOSE_AT / 64)) count=32 iflag=direct 2>/dev/null
		for block in $(seq 0 64 4032); do
			dd if=/tmp/found of=/tmp/block bs=512 skip="$block" count=1 2>/dev/null
			if dd if=/tmp/loose bs=512 skip="$block" count=1 2>/dev/null | cmp -s - /tmp/block; then
				kept=$((kept + 1))
			elif dd if=/dev/zero bs=512 count=1 2>/dev/null | cmp -s - /tmp/block; then
				lost=$((lost + 1))
			else
				torn=$((torn + 1))
			fi
		done
		say "$disk: of 64 blocks that were not flushed $kept are there and $lost are not"
		if [ $torn = 0 ] && [ $lost -gt 0 ]; then ok "$disk loses whole blocks"
		else failed "$disk loses whole blocks" "$lost lost, $torn of neither content"; fi
	done
}

carrier() {
	for _ in $(seq 100); do
		[ "$(cat "/sys/class/net/$1/carrier" 2>/dev/null)" = 1 ] && return
		usleep 100000
	done
	echo "$1 has no carrier"
	return 1
}

# vtd collect in this guest, as root and as an ordinary user; the archives go to the host.
check_collect() {
	hostname a-guest-of-vtd
	echo "this is $(hostname)" >/dev/kmsg
	for who in root user; do
		archive=/tmp/collected-$who.tar.gz
		: >"$archive"
		chmod 666 "$archive"
		/python/run $who collect "$archive" --redact >/tmp/said 2>&1
		code=$?
		while read -r line; do say "$who: $line"; done </tmp/said
		if [ $code = 0 ]; then ok "collect as $who"; else failed "collect as $who" "exit code $code"; fi
		for secret in "$(hostname)" $(grep -hv 00:00:00:00:00:00 /sys/class/net/*/address); do
			zcat "$archive" | grep -qaiF "$secret" && failed "collect as $who" "$secret is in it"
		done
		echo "file: $(basename "$archive") $(base64 "$archive" | tr -d '\n')"
	done
}

# The next kernel starts in this machine, with the units as this one leaves them.
check_kexec() {
	[ -e /next/kernel ] && [ -x $CHECKS ] || { skipped "kexec" "no next kernel or no C compiler"; return; }
	$CHECKS kexec /next/kernel /next/initrd "$(cat /next/line)" || failed "kexec" "refused"
}

check_kdump() {
	[ -e /next/kernel ] && [ -x $CHECKS ] || { skipped "kdump" "no next kernel or no C compiler"; return; }
	$CHECKS kdump /next/kernel /next/initrd "$(cat /next/line)" || { failed "kdump" "refused"; return; }
	for disk in $(disks); do (while :; do write_and_verify "$disk" 0 256 4096; done) >/dev/null 2>&1 & done
	sleep 1
	echo c >/proc/sysrq-trigger
}

check_crash_kernel() {
	if [ -e /proc/vmcore ]; then ok "crash kernel"; else failed "crash kernel" "no /proc/vmcore"; fi
}
