#!/bin/sh
# Backups of both databases, as files of the volume adapt-backups that are whole or absent.
#
#   backup.sh now                  one of each database: prefect-20261126T030000Z.dump, mlflow-...
#   backup.sh every SECONDS        the same again and again
#   backup.sh list                 what there is
#   backup.sh restore NAME.dump    the database of that name as it was then; its server must be stopped
#   backup.sh fresh SECONDS        whether the newest is younger than that
#
# libpq's variables (PGHOST, PGUSER, PGPASSWORD) say where Postgres is; the last KEEP of each database are kept.
set -eu
: "${BACKUPS:=/backups}" "${KEEP:=14}"

now() {
    time=$(date -u +%Y%m%dT%H%M%SZ)
    for database in prefect mlflow; do
        file="$BACKUPS/$database-$time.dump"
        pg_dump --format=custom --file="$file.partial" "$database"
        mv "$file.partial" "$file"
        echo "backup: $file"
        ls -1 "$BACKUPS/$database"-*.dump | sort -r | tail -n "+$((KEEP + 1))" | xargs -r rm --
    done
    rm -f "$BACKUPS"/*.partial
}

case "${1:-}" in
now) now ;;
every)
    while :; do
        # As a command of its own: within `||`, sh would go on after an error.
        sh "$0" now || echo "backup: failed, and is tried again in a minute" >&2
        [ -n "$(find "$BACKUPS" -name '*.dump' -newermt "-$2 seconds" | head -1)" ] && sleep "$2" || sleep 60
    done
    ;;
list) ls -1 "$BACKUPS" ;;
restore)
    case "${2:-}" in
    prefect-*.dump | mlflow-*.dump) ;;
    *) echo "backup: expected a name from the list, such as mlflow-20261126T030000Z.dump" >&2; exit 2 ;;
    esac
    file="$BACKUPS/$2"
    [ -f "$file" ] || { echo "backup: no $file; \`list\` shows what there is" >&2; exit 2; }
    # One transaction: a backup that is damaged changes nothing.
    pg_restore --clean --if-exists --single-transaction --exit-on-error --dbname="${2%%-*}" "$file"
    echo "backup: ${2%%-*} is as it was in $2"
    ;;
fresh) [ -n "$(find "$BACKUPS" -name '*.dump' -newermt "-$2 seconds" | head -1)" ] ;;
*) echo "backup: expected now, every SECONDS, list, restore NAME.dump or fresh SECONDS" >&2; exit 2 ;;
esac
