#!/bin/sh
# Makes of-builder/tls: certificates for BuildKit and the registry, and the registry's logins. Run at the top of the
# repository; git ignores the folder. There is one CA for each purpose, because who holds a certificate of a CA is let
# in: a node may pull, and must not drive BuildKit. htpasswd is in the package apache2-utils.
set -eu
umask 077
mkdir of-builder/tls
cd of-builder/tls

authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$1" \
    -keyout "$1-ca.key" -out "$1-ca.pem" 2> /dev/null
}
certificate() { # CA NAME USE
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" -keyout "$2.key" -out "$2.csr" \
    2> /dev/null
  printf 'subjectAltName=DNS:%s\nextendedKeyUsage=%s\n' "$2" "$3" > "$2.ext"
  openssl x509 -req -in "$2.csr" -CA "$1-ca.pem" -CAkey "$1-ca.key" -CAcreateserial -days 825 -extfile "$2.ext" \
    -out "$2.pem" 2> /dev/null
}
authority buildkit
authority registry
authority nodes
certificate buildkit of-buildkit serverAuth
certificate buildkit of-builder clientAuth
certificate registry registry serverAuth
certificate nodes node clientAuth # Swarm: the engines, to pull

# Each login may do everything at the registry.
openssl rand -hex 24 > push-password
openssl rand -hex 24 > pull-password
htpasswd -iB -c htpasswd of-builder < push-password
htpasswd -iB htpasswd nodes < pull-password
login=$(printf 'of-builder:%s' "$(cat push-password)" | base64 -w0)
printf '{"auths":{"registry:5000":{"auth":"%s"}}}' "$login" > registry-secret
echo "of-builder/tls has certificates for 825 days; keep the keys of the CAs (*-ca.key) elsewhere"
