#!/bin/sh
# git-http-backend, with two rules of our own: pushes come in by the authors' port only, and the
# first push to OWNER/NAME.git makes the repository.
set -eu

export GIT_PROJECT_ROOT=/srv/git GIT_HTTP_EXPORT_ALL=1 REMOTE_USER=author PYTHONPATH=/app

refuse() {
  printf 'Status: %s\r\nContent-Type: text/plain\r\n\r\n%s\n' "$1" "$2"
  exit 0
}

case "$PATH_INFO?${QUERY_STRING:-}" in
  */git-receive-pack\?* | *service=git-receive-pack*)
    [ -n "${PUSH_ALLOWED:-}" ] || refuse '403 Forbidden' 'this port is for fetching'
    python3 -m local.gitserver.repository "$PATH_INFO" || refuse '403 Forbidden' 'no such repository'
    ;;
esac
exec git http-backend
