"""Where we differ from faas-cli on purpose, by the names of its recordings, each with its reason.

docs/repositories.md tells authors.
"""

from __future__ import annotations

# stack-parse.json: read differently.
STACK = {
    "provider-name:faas": "the first OpenFaaS Cloud's repositories say faas: both are accepted",
}

# shrinkwrap.json: faas-cli builds it, we refuse and write nothing.
REFUSED = {
    "copy-extra-sibling-prefix": "the path leaves the repository",
    "handler-folder-escape": "the template's handler_folder leaves the context",
    "handler-traversal": "the handler leaves the repository",
    "name-dot": "a name that is no name of a folder",
    "name-traversal": "a name that is no name of a folder",
}

# shrinkwrap.json: not about what a push can hold.
NO_PUSH = {
    "copy-extra-flag": "an option of the command line",
    "env-bad-subst-off": "an option of the command line",
    "err-filter-nomatch": "an option of the command line",
    "filter": "an option of the command line",
    "regex": "an option of the command line",
    "err-no-stack-file": "about the file, not the tree: test_function_repositories.py",
    "no-lang": "faas-cli prints a hint and builds nothing; here it is an error",
    "lang-dockerfile-template-absent": "faas-cli wants the template's folder, though it takes nothing of it",
    "readonly-dir-nonroot": "about the permissions of faas-cli's own folder",
    "upstream-python3-http": "needs the upstream template, of which only hashes are recorded",
}

# shrinkwrap.json: a path that faas-cli leaves from an earlier build; our work folder is always new.
LEFTOVERS = {"stale-build": "other"}

# template-pull.json: another template is taken.
TEMPLATES = {
    "build-config-already-there-not-updated": "there is no template folder of an earlier build",
    "build-config-disabled": "an option of the command line",
    "build-config-env-source": "a push sees no environment: test_a_stack_sees_no_environment",
}
