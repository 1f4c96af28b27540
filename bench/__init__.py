"""`make bench`: what the cloud costs, beside what the tools underneath cost by hand."""
