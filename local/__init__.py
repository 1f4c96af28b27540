"""The whole cloud on one machine, and the developer's command line."""
