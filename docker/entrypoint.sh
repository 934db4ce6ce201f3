#!/bin/sh
# What a container of the image does, by its first word: "head" and "worker" are Ray nodes, all else is an automc command.
# With RAY_HEAD (host:port) a command first joins that cluster, as a node that evaluates nothing itself.
set -eu

PORT="${RAY_PORT:-6379}"

case "${1:-}" in
head)
    exec ray start --head --port="$PORT" --num-cpus=0 --include-dashboard=false --disable-usage-stats --block
    ;;
worker)
    exec ray start --address="${RAY_HEAD:?worker: RAY_HEAD must name the head, as host:port}" \
        --num-cpus="${CPUS:-1}" --disable-usage-stats --block
    ;;
esac

if [ -n "${RAY_HEAD:-}" ]; then
    ray start --address="$RAY_HEAD" --num-cpus=0 --disable-usage-stats >/dev/null
fi
exec automc "$@"
