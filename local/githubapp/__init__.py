"""`github-app`: registers the GitHub App of a cloud, by a form that is filled in already."""
