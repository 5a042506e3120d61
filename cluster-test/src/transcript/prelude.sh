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

# ---- of a cluster ($M0, $M1 ... are its members, $ALL all of them)

# etcdctl refuses to run where both the variable and the flag say whom to ask.
if [ -n "$ALL" ]; then
    etcdctl() {
        case " $*" in
        *" --endpoints="*) env --unset=ETCDCTL_ENDPOINTS etcdctl "$@" ;;
        *) command etcdctl "$@" ;;
        esac
    }
fi

# leader: the address of the member that leads by its own word.
leader() {
    etcdctl --endpoints=$ALL endpoint status 2>/dev/null | awk -F', ' '$9 == "true" { print $1; exit }'
}

# lead N: member N leads from now on, and all others follow it.
lead() {
    local endpoint id
    eval "endpoint=\$M$1 id=\$ID$1"
    wait_for '[ -n "$(leader)" ]'
    [ "$(leader)" = "$endpoint" ] || etcdctl --endpoints=$(leader) move-leader $id >/dev/null
    wait_for "[ \"\$(leader)\" = $endpoint ] && etcdctl --endpoints=$ALL endpoint health"
}

# healthy COMMAND...: until the cluster is taken for healthy, which real etcd's is some seconds after every change.
healthy() {
    wait_for "! $* 2>&1 | tee .healthy | grep -q 'unhealthy cluster'"
    cat .healthy
}

# join NAME: starts the member that `member add` has just told how to start ($ETCD_...), at $NEXT; until it answers.
join() {
    start $1 timeout --foreground 150 env ETCD_NAME="$ETCD_NAME" ETCD_INITIAL_CLUSTER="$ETCD_INITIAL_CLUSTER" \
        ETCD_INITIAL_CLUSTER_STATE="$ETCD_INITIAL_CLUSTER_STATE" \
        ETCD_INITIAL_ADVERTISE_PEER_URLS="$ETCD_INITIAL_ADVERTISE_PEER_URLS" \
        "$SERVER" $SERVER_FLAGS --data-dir=$1.etcd --listen-peer-urls=$NEXT_PEER \
        --listen-client-urls=http://$NEXT --advertise-client-urls=http://$NEXT
    wait_for "etcdctl --endpoints=$NEXT endpoint status"
}
