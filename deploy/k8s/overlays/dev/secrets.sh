#!/bin/sh
# Prints the Secrets that the manifests refer to, with values made anew: sh secrets.sh | kubectl create -f -
# Once: what is stored can be read with these keys alone. The authority's own key is kept nowhere.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

secret() { # secret NAME KEY VALUE [KEY VALUE]…; values are base64.
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: backhaul\ndata:\n' "$1"
  shift
  while [ $# -gt 0 ]; do
    printf '  %s: %s\n' "$1" "$2"
    shift 2
  done
}
file() { openssl base64 -A -in "$1"; }
text() { printf %s "$1" | openssl base64 -A; }
random() { openssl rand -hex 24 | tr -d '\n' | openssl base64 -A; }

secret backhaul-admin token "$(random)"
secret backhaul-internal token "$(random)"
secret backhaul-keys keys "$(openssl rand -base64 32 | tr '+/' '-_' | openssl base64 -A)"
secret backhaul-nats url "$(text nats://nats:4222)"
secret backhaul-mongodb uri "$(text 'mongodb://mongodb-0.mongodb:27017/?replicaSet=rs0')"
secret backhaul-object-store access-key "$(random)" secret-key "$(random)"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Backhaul internal CA" \
  -keyout ca.key -out ca.pem 2>/dev/null
for name in gateway normalizer suppression audit reconciler notifier; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout key -out csr 2>/dev/null
  printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$name" >ext
  openssl x509 -req -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -extfile ext -out cert 2>/dev/null
  secret "backhaul-$name-tls" tls.crt "$(file cert)" tls.key "$(file key)" ca.crt "$(file ca.pem)"
done
