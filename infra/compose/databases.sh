#!/bin/sh
# A user and a database for each server. Postgres's image runs this once, when its volume is empty.
set -eu
for name in prefect mlflow; do
    case "$name" in prefect) password=$PREFECT_PASSWORD ;; mlflow) password=$MLFLOW_PASSWORD ;; esac
    # psql quotes both; variables are not filled in within -c, so the words come by standard input.
    psql --quiet --set=ON_ERROR_STOP=1 --username=postgres --set=name="$name" --set=password="$password" <<'SQL'
CREATE USER :"name" PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
