# shellcheck shell=sh disable=SC2154
# What the init scripts of yurt's daemons have in common.  A script sets
#   DAEMON   the name of the daemon, as twistd knows it
#   OPTIONS  its options, separated by blanks; SETTING is the name they have in DEFAULTS, the file of settings
#   TWISTD   the program that runs it
# and may set PIDFILE, YURT_LOG_FILE and STOP_SECONDS; then it calls daemon with the word it was given.
PATH="${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin"
PIDFILE="${PIDFILE:-/run/$DAEMON.pid}"
export YURT_LOG_FILE="${YURT_LOG_FILE:-/var/log/yurt/$DAEMON.log}"
STOP_SECONDS="${STOP_SECONDS:-30}"

# The process of the pid file, if it is ours: the number may have gone to another one.
running() {
    pid=
    [ -r "$PIDFILE" ] || return 1
    read -r pid <"$PIDFILE" || [ -n "$pid" ] || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "twistd.* $DAEMON "
}

log_size() {
    wc -c 2>/dev/null <"$YURT_LOG_FILE" || echo 0
}

start() {
    if running; then
        echo "$DAEMON is running already (process $pid)"
        return 0
    fi
    if [ ! -x "$TWISTD" ]; then
        echo "$DAEMON: no program $TWISTD; set TWISTD in $DEFAULTS" >&2
        return 5
    fi
    if [ -z "$OPTIONS" ]; then
        echo "$DAEMON is not configured: set $SETTING in $DEFAULTS" >&2
        return 6
    fi
    rm -f "$PIDFILE"
    # twistd comes back when the daemon listens, or with the reason why it does not: whole for an option, else cut off after some
    # words, and whole in the log.
    before=$(log_size)
    set -f # a * among the options is no file name
    # shellcheck disable=SC2086
    "$TWISTD" --rundir=/ --pidfile="$PIDFILE" --logger=yurt.logs.rotating "$DAEMON" $OPTIONS && running || {
        rm -f "$PIDFILE" # the daemon's own removal may still be under way
        [ "$(log_size)" = "$before" ] || echo "$DAEMON did not start, see the end of $YURT_LOG_FILE" >&2
        return 1
    }
    echo "$DAEMON started (process $pid)"
}

stop() {
    if ! running; then
        rm -f "$PIDFILE"
        return 0
    fi
    kill -TERM "$pid" 2>/dev/null
    left=$((STOP_SECONDS * 5))
    while [ "$left" -gt 0 ] && kill -0 "$pid" 2>/dev/null; do
        sleep 0.2 2>/dev/null || sleep 1
        left=$((left - 1))
    done
    if kill -0 "$pid" 2>/dev/null; then
        echo "$DAEMON (process $pid) did not stop within $STOP_SECONDS s and is killed" >&2
        kill -KILL "$pid" 2>/dev/null
    fi
    rm -f "$PIDFILE"
    echo "$DAEMON stopped"
}

reload() {
    if ! running; then
        echo "$DAEMON is not running" >&2
        return 7
    fi
    kill -HUP "$pid"
}

status() {
    if running; then
        echo "$DAEMON is running (process $pid)"
    elif [ -e "$PIDFILE" ]; then
        echo "$DAEMON is dead, its pid file $PIDFILE is left"
        return 1
    else
        echo "$DAEMON is not running"
        return 3
    fi
}

# The daemon was started, not stopped, and is dead.
crashed() {
    [ -e "$PIDFILE" ] && ! running
}

# For a line of /etc/inittab: start it again each time that it has crashed, which nothing else does without systemd.  Two looks, as
# one that ends in good order is dead for a moment before its pid file goes.
watch() {
    while :; do
        sleep 1
        if crashed && sleep 1 && crashed; then
            echo "$DAEMON has crashed and is started again" >&2
            start
        fi
    done
}

daemon() {
    case "${1:-}" in
    start | stop | status | reload | watch)
        "$1"
        ;;
    restart)
        stop && start
        ;;
    try-restart)
        ! running || { stop && start; }
        ;;
    force-reload)
        # LSB: reload where the service can, and do nothing where it does not run.
        ! running || reload
        ;;
    *)
        echo "usage: $0 {start|stop|status|restart|try-restart|reload|force-reload|watch}" >&2
        return 2
        ;;
    esac
}
