#!/usr/bin/env bash
# A real SLURM on this machine alone: one controller, two nodes, partitions cpu (default) and gpu, and one pretend GPU.
#
#   slurm_up.sh up [PID]   install what is missing, start the daemons, wait until the nodes are idle; when PID is
#                          given, everything is taken down as soon as that process is gone (exit 3: could not install)
#   slurm_up.sh check      say in one line why `up` cannot work here (exit 1), or nothing
#   slurm_up.sh status     nodes and jobs
#   slurm_up.sh down       end the daemons, also those that an earlier run left
#
# It needs root: the client commands inside a job find the cluster by /etc/slurm/slurm.conf and nothing else, because
# Snakemake's executor clears SLURM_CONF there. Nodes have fixed, pretended sizes, so that a test behaves the same on
# a small machine. There is no accounting database and there are no cgroups: memory is checked every second by
# sampling (OverMemoryKill).
set -euo pipefail

cluster=inverseflow-test
state=/run/inverseflow-slurm
run=$state/run
conf=(slurm gres cgroup)
nodes=(n1 n2)
cpus=4
memory_mb=16000
export PATH=$PATH:/usr/sbin

say() { echo "slurm_up.sh: $*" >&2; }

installed() { command -v slurmctld slurmd sinfo sbatch munged >/dev/null; }

foreign_conf() { # a configuration that this script has not made
  for name in "${conf[@]}"; do
    local file=/etc/slurm/$name.conf
    if [ -e "$file" ] && [ "$(readlink "$file")" != "$state/$name.conf" ]; then echo "$file"; fi
  done
}

check() {
  if [ "$(id -u)" != 0 ]; then
    say "needs root to write /etc/slurm and start the daemons"
  elif [ -n "$(foreign_conf)" ]; then
    say "this machine is part of another cluster: $(foreign_conf | head -n 1) exists"
  elif ! installed && ! command -v apt-get >/dev/null; then
    say "needs SLURM and munge (slurmctld, slurmd, munged), and there is no apt-get to install them"
  else
    return 0
  fi
  return 1
}

ours() { # is the process of pid file $1 still the daemon $2 that we started?
  local pid
  pid=$(cat "$1" 2>/dev/null) && [[ $(readlink "/proc/$pid/exe") == */$2* ]] # Debian's is called slurmctld-wlm
}

stop() { # end the daemon $2 of pid file $1, gently for five seconds
  local pid
  if ours "$1" "$2"; then
    pid=$(<"$1")
    kill "$pid"
    for _ in {1..50}; do
      ours "$1" "$2" || break
      sleep 0.1
    done
    if ours "$1" "$2"; then kill -KILL "$pid"; fi
  fi
  rm -f "$1"
}

down() {
  rm -f "$run/token"
  # Jobs first: a daemon that ends leaves its job steps running.
  if ours "$run/slurmctld.pid" slurmctld && [ -L /etc/slurm/slurm.conf ]; then
    timeout 10 scancel --full --user="$(id -un)" || true
    for _ in {1..30}; do
      [ -n "$(timeout 10 squeue --noheader 2>/dev/null || true)" ] || break
      sleep 0.2
    done
  fi
  for file in $(grep --files-with-matches --null-data "^SLURM_CLUSTER_NAME=$cluster\$" /proc/[0-9]*/environ 2>/dev/null || true); do
    kill -KILL "$(basename "$(dirname "$file")")" 2>/dev/null || true # of a controller that was killed itself
  done
  for node in "${nodes[@]}"; do stop "$run/slurmd-$node.pid" slurmd; done
  stop "$run/slurmctld.pid" slurmctld
  stop "$run/munged.pid" munged
  for name in "${conf[@]}"; do
    if [ "$(readlink "/etc/slurm/$name.conf" || true)" = "$state/$name.conf" ]; then
      rm -f "/etc/slurm/$name.conf"
    fi
  done
}

configure() {
  local host
  host=$(hostname -s)
  rm -rf "$state"
  mkdir -p "$run" "$state/controller" "$state/log" /etc/slurm
  for node in "${nodes[@]}"; do mkdir -p "$state/spool/$node"; done
  chmod 755 "$state" "$run"
  (umask 077 && head -c 1024 /dev/urandom >"$run/munge.key")
  cat >"$state/slurm.conf" <<END
ClusterName=$cluster
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=27817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$run/munge.socket
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/spool/%n
SlurmctldPidFile=$run/slurmctld.pid
SlurmdPidFile=$run/slurmd-%n.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdLogFile=$state/log/slurmd-%n.log
# No accounting database, no cgroups.
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
# CPUs and memory are handed out; a step above its memory is killed.
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
# Small and quick.
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
MinJobAge=300
GresTypes=gpu
NodeName=${nodes[0]} NodeHostname=$host NodeAddr=127.0.0.1 Port=27821 CPUs=$cpus RealMemory=$memory_mb
NodeName=${nodes[1]} NodeHostname=$host NodeAddr=127.0.0.1 Port=27822 CPUs=$cpus RealMemory=$memory_mb Gres=gpu:1
PartitionName=cpu Nodes=ALL Default=YES LLN=YES MaxTime=1-00:00:00
PartitionName=gpu Nodes=${nodes[1]} MaxTime=1-00:00:00
END
  echo "NodeName=${nodes[1]} Name=gpu File=/dev/null" >"$state/gres.conf"
  echo "CgroupAutomount=no" >"$state/cgroup.conf"
  for name in "${conf[@]}"; do ln -sfn "$state/$name.conf" "/etc/slurm/$name.conf"; done
}

ready() { [ "$(timeout 5 sinfo --noheader --Node --states=idle --partition=cpu 2>/dev/null | wc -l)" = ${#nodes[@]} ]; }

install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge
} >/dev/null 2>&1

up() {
  check
  down
  if ! installed; then
    install || { say "apt-get could not install slurm-wlm and munge" && exit 3; }
  fi
  configure
  trap 'say "no cluster; the logs are in $state/log"; tail -n 3 "$state"/log/*.log >&2; down' ERR
  # --force: our own key and socket, away from a munge of the machine.
  munged --force --key-file="$run/munge.key" --socket="$run/munge.socket" --pid-file="$run/munged.pid" \
    --log-file="$state/log/munged.log" --seed-file="$run/munged.seed"
  slurmctld
  for node in "${nodes[@]}"; do slurmd -N "$node"; done
  for _ in {1..150}; do
    if ready; then break; fi
    sleep 0.2
  done
  ready
  if [ -n "${1:-}" ]; then watch "$1"; fi
}

watch() { # take this cluster, and no later one, down when process $1 is gone; free of the caller's terminal and pipes
  echo "$BASHPID-$RANDOM" >"$run/token"
  setsid bash -c 'while [ "$(cat "$3" 2>/dev/null)" = "$4" ]; do kill -0 "$2" 2>/dev/null || exec "$1" down; sleep 1; done' \
    watch "$(realpath "$0")" "$1" "$run/token" "$(<"$run/token")" </dev/null >/dev/null 2>&1 &
}

case ${1:-} in
  up) up "${2:-}" ;;
  check) check ;;
  status) sinfo --Node --long && squeue ;;
  down) down ;;
  *) sed -n '2,/^set/p' "$0" | sed '/^set/d; s/^# \{0,1\}//' && exit 2 ;;
esac
