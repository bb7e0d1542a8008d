#!/usr/bin/env bash
# A real Slurm of four nodes on this machine, for tests: munged, slurmctld and one slurmd per node; no systemd, no
# cgroups, no accounting database. As root:
#   tests/slurm/start.sh FOLDER       starts it, or what is missing of it (idempotent), with all state in FOLDER
#   tests/slurm/stop.sh FOLDER        stops it and removes FOLDER
# Nodes c1 and c2 have no GPU; g1 has two GPUs of type a100, g2 two of type h100 (device files that are /dev/null).
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
nodes="c1 c2 g1 g2"
[ "$(id -u)" = 0 ] || { echo "start.sh must run as root" >&2; exit 1; }
for program in munged slurmctld slurmd sbatch; do
  command -v $program >/dev/null || { echo "$program is missing; on Debian: apt install slurmctld slurmd slurm-client munge" >&2; exit 1; }
done
umask 022
mkdir -p "$folder"/{etc,log,ctld,munge,dev,c1,c2,g1,g2}
chmod 755 "$folder" "$folder/munge" "$folder/log"

# A cluster that an interrupted run of the tests left behind holds the ports.
other=$(readlink /etc/slurm/slurm.conf || true)
if [ -n "$other" ] && [ "$other" != "$folder/etc/slurm.conf" ] && grep -qs '^ClusterName=mllmtest' "$other"; then
  "$here/stop.sh" "${other%/etc/slurm.conf}"
fi

# Where PID 1 reaps nothing, a dead process stays a zombie and `kill -0` takes it for alive.
alive() { local stat; [ -s "$1" ] && stat=$(sed 's/.*) //' "/proc/$(cat "$1")/stat" 2>/dev/null) && [ "${stat%% *}" != Z ]; }
until_ok() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "gave up waiting for: $*" >&2; exit 1; }

for file in slurm.conf gres.conf; do
  sed -e "s|@FOLDER@|$folder|g; s|@HOST@|$(hostname -s)|g" "$here/$file" > "$folder/etc/$file"
  # Nested srun calls lose SLURM_CONF, so Slurm must find its configuration at the built-in place as well.
  mkdir -p /etc/slurm
  if [ -e "/etc/slurm/$file" ] && [ ! -L "/etc/slurm/$file" ]; then echo "/etc/slurm/$file exists and is not this cluster's" >&2; exit 1; fi
  ln -sfn "$folder/etc/$file" "/etc/slurm/$file"
done
for i in 0 1 2 3; do [ -e "$folder/dev/nvidia$i" ] || mknod -m 666 "$folder/dev/nvidia$i" c 1 3; done

if [ ! -s "$folder/munge/key" ]; then
  dd if=/dev/urandom of="$folder/munge/key" bs=1024 count=1 status=none
  chmod 600 "$folder/munge/key"
fi
alive "$folder/munged.pid" || munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/munge/seed"
until_ok munge -n -S "$folder/munge/socket"
alive "$folder/slurmctld.pid" || slurmctld
until_ok bash -c 'scontrol ping | grep -q "is UP"'
for node in $nodes; do alive "$folder/slurmd.$node.pid" || slurmd -N "$node"; done
until_ok bash -c 'test "$(sinfo -h -N -o "%N %t" | sort -u | grep -cE " (idle|mix|alloc)$")" = 4 || { scontrol update nodename=c1,c2,g1,g2 state=resume; false; }'
