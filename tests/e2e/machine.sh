#!/bin/bash
# The first process of a test machine (machines.py): runs in namespaces of its own, FOLDER being its disk.
#   machine.sh FOLDER NAME NAMESERVER
set -euo pipefail
folder=$1 name=$2 nameserver=$3

mount --make-rprivate /
mount -t sysfs sysfs /sys
if [ -e "$folder/unified" ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  # Controllers are for groups without processes of their own.
  mkdir -p /sys/fs/cgroup/init
  echo 0 >/sys/fs/cgroup/init/cgroup.procs
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control || true
  done
else
  mount -t tmpfs tmpfs /sys/fs/cgroup
  while read -r controller; do
    mkdir "/sys/fs/cgroup/$controller"
    # systemd's has no controller, only a name.
    [ "$controller" = systemd ] && option=none,name=systemd || option=$controller
    mount -t cgroup -o "$option" cgroup "/sys/fs/cgroup/$controller"
  done <"$folder/controllers"
fi
# All of /var/lib: a mount over a folder that somebody else removes would go with it.
mkdir -p "$folder/disk/var/lib"
for path in /var/lib/dpkg /var/lib/apt; do
  mkdir "$folder/disk$path"
  mount --bind "$path" "$folder/disk$path"
done
mount --rbind "$folder/disk/var/lib" /var/lib
mount --bind "$folder/disk/etc/docker" /etc/docker
resolv=$(readlink -m /etc/resolv.conf)
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/sshd "$(dirname "$resolv")"
[ -e "$resolv" ] || touch "$resolv"
echo "nameserver $nameserver" >"$folder/resolv.conf"
mount --bind "$folder/resolv.conf" "$resolv"
cp /etc/passwd "$folder/passwd"
grep -q '^sshd:' "$folder/passwd" || echo 'sshd:x:74:74::/run/sshd:/usr/sbin/nologin' >>"$folder/passwd"
mount --bind "$folder/passwd" /etc/passwd
echo 'root:*:20000:0:99999:7:::' >"$folder/shadow" # a locked account could not log in by key either
mount --bind "$folder/shadow" /etc/shadow
hostname "$name"
ip link set lo up
echo ready

# Reaps whom their parents left behind, until it is killed, and everything here with it.
while :; do
  sleep 1
done
