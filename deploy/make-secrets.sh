#!/bin/sh
# Passwords, a certificate authority and a server certificate for one deployment, into a new folder:
#   deploy/make-secrets.sh FOLDER [HOST:PORT of the broker] [path of ca.crt as the roles see it] [HOST of S3]
# The certificate is good for the names of compose.yaml, this machine, and the hosts given here.
# Nothing is printed and nothing is overwritten. A site with a PKI replaces ca.crt, server.crt, server.key, and
# leaves them readable as they were (the last lines say why).
set -eu
umask 077

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?"usage: make-secrets.sh FOLDER [BROKER] [CA] [S3]"}
broker=${2:-redis:6379}
ca=${3:-/run/secrets/ca.crt}
s3=${4:-s3}
days=825

mkdir "$folder"
cd "$folder"

word() {
    openssl rand -hex 24
}

hash_of() {
    printf %s "$1" | openssl dgst -sha256 -r | cut -d' ' -f1
}

# HOST, HOST:PORT or [IPv6]:PORT as a name of the certificate.
name_of() {
    case $1 in
        "["*) host=${1#"["} && host=${host%%"]"*} ;;
        *) host=${1%:*} ;;
    esac
    case $host in
        *:*) printf 'IP:%s' "$host" ;;
        *[!0-9.]*) printf 'DNS:%s' "$host" ;;
        *) printf 'IP:%s' "$host" ;;
    esac
}

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days "$days" \
    -subj "/CN=nss-train CA" -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout ca.key -out ca.crt 2>openssl.log
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=nss-train" \
    -keyout server.key -out server.csr 2>>openssl.log
cat >extensions <<EOF
subjectAltName=DNS:redis,DNS:s3,DNS:flower,DNS:localhost,IP:127.0.0.1,$(name_of "$broker"),$(name_of "$s3")
extendedKeyUsage=serverAuth
EOF
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" \
    -extfile extensions -out server.crt 2>>openssl.log
rm server.csr extensions openssl.log

# Redis keeps hashes only; each role's URL holds the password itself.
sed -e ':join' -e '/\\$/{N' -e 's/ *\\\n */ /' -e 'b join' -e '}' -e '/^#/d' -e '/^$/d' "$here/users.acl" >users.acl
for role in client worker flower metrics; do
    password=$(word)
    sed "s/@$role@/$(hash_of "$password")/" users.acl >users.new
    mv users.new users.acl
    query="ssl_cert_reqs=required&ssl_ca_certs=$ca"
    printf 'rediss://%s:%s@%s/0?%s' "$role" "$password" "$broker" "$query" >"broker-url-$role"
done

# The health check of the container may only ask whether Redis answers.
word >health-password
sed "s/@health@/$(hash_of "$(cat health-password)")/" users.acl >users.new
mv users.new users.acl

access_key=$(word)
secret_key=$(word)
printf %s "$access_key" >s3-access-key
printf %s "$secret_key" >s3-secret-key
cat >s3.json <<EOF
{"identities": [{"name": "nss-train", "actions": ["Admin", "Read", "Write", "List"],
  "credentials": [{"accessKey": "$access_key", "secretKey": "$secret_key"}]}]}
EOF
printf 'admin:%s' "$(word)" >flower-basic-auth
word >grafana-password

# Containers read these files with users of their own, and compose mounts them with the mode that they have
# here; the folder itself stays closed to others. Nobody needs ca.key but who makes the next certificate.
chmod 0644 ./*
chmod 0600 ca.key
