"""of-builder: BuildKit as an HTTP service, with the protocol of OpenFaaS's builder."""
