# What the scripts may call besides etcdctl. Nothing here sleeps for a fixed time and hopes: it looks until it sees, or says that it did not.

# wait_for 'condition': until the command succeeds.
wait_for() {
    local tries=0
    until eval "$1" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ]; then echo "wait_for: not within 30 s: $1"; return 1; fi
        sleep 0.05
    done
}

# start NAME command...: in the background, what it prints goes to NAME.out.
start() {
    local name=$1
    shift
    "$@" <&0 >"$name.out" 2>&1 &
    eval "pid_$name=$!"
}

# printed NAME LINES: waits until NAME has printed so many lines, then shows all.
printed() {
    wait_for "[ \$(wc -l <$1.out) -ge $2 ]"
    cat "$1.out"
}

# finished NAME: waits for its end, then shows what it printed; the exit code is its own.
finished() {
    local pid code
    eval "pid=\$pid_$1"
    wait_for "! kill -0 $pid"
    wait "$pid"
    code=$?
    cat "$1.out"
    return $code
}

# stop NAME: SIGTERM, then as finished.
stop() {
    eval "kill -TERM \$pid_$1"
    finished "$1"
}

# end NAME: SIGTERM to a watch, and on when the member has let go of it; what it printed has been shown.
end() {
    eval "kill -TERM \$pid_$1; wait \$pid_$1" 2>/dev/null
    watching 0
}

# watching COUNT: until the member has so many watches.
watching() {
    wait_for "[ \"\$(watches)\" = $1 ]"
}
watches() {
    exec 3<>"/dev/tcp/${ENDPOINT%:*}/${ENDPOINT#*:}"
    printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
    sed -n 's/^etcd_debugging_mvcc_watcher_total \([0-9]*\).*/\1/p' <&3
    exec 3>&-
}

# hex: standard input as hexadecimal digits in one line, for what is binary.
hex() {
    od -An -v -tx1 | tr -d ' \n'
    echo
}
