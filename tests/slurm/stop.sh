#!/usr/bin/env bash
# Stop what start.sh started in a folder, and remove the folder.
set -uo pipefail
folder=$1
alive() { local stat; stat=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) && [ "${stat%% *}" != Z ]; }
timeout 10 scancel --user=root 2>/dev/null
for _ in $(seq 100); do [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break; sleep 0.1; done
for file in "$folder"/slurmd.*.pid "$folder/slurmctld.pid" "$folder/munged.pid"; do
  [ -s "$file" ] || continue
  pid=$(cat "$file")
  kill "$pid" 2>/dev/null
  for _ in $(seq 100); do alive "$pid" || break; sleep 0.1; done
  alive "$pid" && kill -KILL "$pid"
done
pkill -KILL --ns $$ --nslist net -f "slurmstepd: \[" 2>/dev/null  # what a killed node left behind
for file in slurm.conf gres.conf; do [ "$(readlink "/etc/slurm/$file")" = "$folder/etc/$file" ] && rm -f "/etc/slurm/$file"; done
rm -rf "$folder"
