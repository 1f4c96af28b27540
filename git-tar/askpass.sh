#!/bin/sh
# What git runs (GIT_ASKPASS) to ask for credentials. Answers for one scheme and host only, so that the
# token goes nowhere else, and stands in no argument, URL or file.
case "$1" in
  "Username for '$ASKPASS_SCHEME://$ASKPASS_HOST': ") [ -n "$ASKPASS_TOKEN" ] && echo x-access-token ;;
  "Password for '$ASKPASS_SCHEME://x-access-token@$ASKPASS_HOST': ") printf '%s\n' "$ASKPASS_TOKEN" ;;
  *) exit 1 ;;
esac
