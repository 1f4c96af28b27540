"""A play of GitHub's checks for the local cloud: what `up --github` starts beside it."""

# The App that it knows, by the number that GitHub would give it.
APP_ID = "1"
