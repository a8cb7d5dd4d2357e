#!/usr/bin/env bash
# A SLURM of one machine, for tests: no systemd, no site. To be run as root.
#
#   tests/slurm/local_cluster.sh install      Debian's slurm-wlm and munge, where they are missing;
#                                      exit code 3 where that cannot be
#   tests/slurm/local_cluster.sh start DIR    then: export SLURM_CONF=DIR/slurm.conf
#   tests/slurm/local_cluster.sh stop DIR     ends, by process id, what start has started
#
# DIR holds everything: configuration, keys, logs, state. Two partitions, low (the default) and
# high: a job in high preempts one in low, which is requeued. Two GPUs that are not there.
# SLURM_LOCAL_PORT (16817) and the port after it are used, on this machine only.
set -euo pipefail

say() { echo "local_cluster: $*" >&2; }

install() {
    [ "$(id -u)" = 0 ] || { say "only root can start a SLURM here"; return 3; }
    local name missing=
    for name in slurmctld slurmd sbatch munged; do
        command -v $name >/dev/null || missing=1
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || { say "SLURM is not installed, and there is no apt-get"; return 3; }
    # The packages would start their own services, which know nothing of DIR.
    local policy=/usr/sbin/policy-rc.d made=
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy; made=1; }
    apt-get update -qq >/dev/null &&
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            slurm-wlm munge >/dev/null || local failed=1
    [ -z "$made" ] || rm -f $policy
    [ -z "${failed:-}" ] || { say "apt-get could not install slurm-wlm and munge"; return 3; }
}

configure() {
    local host cores memory port
    host=$(hostname -s) cores=$(getconf _NPROCESSORS_ONLN) port=${SLURM_LOCAL_PORT:-16817}
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)
    mkdir -p "$dir"/{state,spool,log,munge}
    chmod 755 "$dir/munge"
    if [ ! -s "$dir/munge/key" ]; then
        (umask 077 && head -c 1024 /dev/urandom >"$dir/munge/key")
    fi
    for i in 0 1; do # other names of /dev/null
        [ -e "$dir/gpu$i" ] || mknod "$dir/gpu$i" c 1 3
    done
    echo "NodeName=$host Name=gpu File=$dir/gpu[0-1]" >"$dir/gres.conf"
    # cred_expire: a requeued job waits that long before it starts again; the default is 2 minutes.
    cat >"$dir/slurm.conf" <<END
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=5,bf_interval=5,batch_sched_delay=0,sched_min_interval=0
KillWait=5
MinJobAge=600
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
END
}

start() {
    configure
    munged --force --num-threads=2 --key-file="$dir/munge/key" --socket="$dir/munge/socket" \
        --pid-file="$dir/munge.pid" --log-file="$dir/log/munge.log" --seed-file="$dir/munge/seed"
    export SLURM_CONF="$dir/slurm.conf"
    slurmctld -c -f "$SLURM_CONF"
    slurmd -f "$SLURM_CONF" -N "$(hostname -s)"
    for _ in $(seq 60); do
        if sinfo --noheader --format=%t 2>/dev/null | grep -q idle; then
            echo "export SLURM_CONF=$SLURM_CONF"
            return
        fi
        sleep 0.5
    done
    say "no node came up; the ends of the logs:"
    tail -n 5 "$dir"/log/*.log >&2
    stop
    return 1
}

stop() {
    local name pid
    for name in slurmd slurmctld munge; do
        [ -s "$dir/$name.pid" ] || continue
        pid=$(cat "$dir/$name.pid")
        # A number that was given to another process since then is left alone.
        grep -qE '^(slurmd|slurmctld|munged)$' "/proc/$pid/comm" 2>/dev/null || continue
        kill "$pid"
        for _ in $(seq 100); do
            [ -e "/proc/$pid" ] || break
            sleep 0.1
        done
        [ ! -e "/proc/$pid" ] || kill -9 "$pid"
    done
}

case "${1:-}" in
install) install ;;
start | stop)
    [ $# = 2 ] || { say "$1 needs a folder"; exit 2; }
    mkdir -p "$2"
    dir=$(cd "$2" && pwd)
    "$1"
    ;;
*)
    say "use install, start DIR or stop DIR"
    exit 2
    ;;
esac
