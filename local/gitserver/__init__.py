"""A git server that plays GitHub: a push becomes the event that GitHub would send."""
