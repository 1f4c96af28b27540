"""The part of the OpenFaaS REST API that the cloud and faas-cli use, mapped onto Swarm services."""
