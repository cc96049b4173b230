#!/bin/sh
# Builds the image of every service and runs compose.yaml with podman: the demo holds, a killed service comes back, gateways
# are upgraded under load, and everything stops in time. --quick leaves out the demo and the upgrade. Where no registry is
# at hand, stand-ins for the public images are made from Debian's packages and from the wheels of the local stack:
# STAND_INS=0 pulls the real ones instead.
set -eu
cd "$(dirname "$0")/.."
for needed in podman runc debootstrap; do
  command -v "$needed" >/dev/null 2>&1 || { echo "skipped: there is no $needed here (Debian: apt install podman runc netavark aardvark-dns debootstrap)"; exit 0; }
done
[ "$(id -u)" -eq 0 ] || { echo "skipped: debootstrap needs root"; exit 0; }
python=$PWD/.venv/bin/python
place=${CONTAINERS_FOLDER:-$(mktemp -d)}
mkdir -p "$place"
# Storage and networks of its own, so that nothing of the machine's is touched, and all of it goes at once. What
# CONTAINERS_FOLDER names is kept for the next run.
cat >"$place/storage.conf" <<CONF
[storage]
driver = "${CONTAINERS_DRIVER:-overlay}"
graphroot = "$place/graph"
runroot = "$place/run"
CONF
cat >"$place/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=4096:4096","nproc=4096:4096"]
[network]
network_backend = "netavark"
network_config_dir = "$place/networks"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
CONF
export CONTAINERS_STORAGE_CONF="$place/storage.conf" CONTAINERS_CONF="$place/containers.conf"
# What fails here is no failure of the run, and dash takes a signal for no exit.
tidy() { [ -n "${CONTAINERS_FOLDER:-}" ] || { podman rm -af; podman rmi -af; rm -rf "$place"; } >/dev/null 2>&1 || true; }
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
echo "Everything is in $place."
# A rootfs of one program, since there is no image yet.
probe=$place/probe
mkdir -p "$probe/dev" "$probe/proc" "$probe/sys" "$probe/etc" "$probe/tmp" "$probe/run"
ldd /bin/true | grep -o '/[^ )]*' | xargs cp -L --parents -t "$probe" /bin/true
podman run --rm --rootfs "$probe" /bin/true >"$place/probe.log" 2>&1 ||
  { echo "skipped: podman cannot run a container here: $(tail -n 1 "$place/probe.log")"; exit 0; }
export BACKHAUL_VERSION=test
if [ ! -x "$place/tools/bin/podman-compose" ]; then
  python3 -m venv "$place/tools"
  "$place/tools/bin/pip" install --quiet podman-compose==1.6.0
fi

base=$(sed -n 's/^ARG BASE=//p' deploy/docker/Dockerfile)
build() { podman build --format docker --isolation chroot --network host --quiet "$@" >/dev/null; }

image_of() { sed -n "s|^ *image: \(docker.io/[a-z/]*$1:.*\)|\1|p" deploy/compose/compose.yaml; }

stand_ins() {
  case " $* " in *" --quick "*) balancer= ;; *) balancer=haproxy ;; esac
  root=$place/debian
  if [ ! -e "$root/complete" ]; then
    rm -rf "$root"
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates,libcurl4,libssl3,liblzma5 \
      bookworm "$root" >"$place/debootstrap.log" 2>&1 ||
      { echo "skipped: debootstrap makes no base here: $(tail -n 1 "$place/debootstrap.log")"; exit 0; }
    ln -s /usr/bin/python3 "$root/usr/local/bin/python3"
    ln -s /usr/bin/python3 "$root/usr/local/bin/python"
    touch "$root/complete"
  fi
  # What this machine trusts, where the package index is behind a proxy of its own.
  certificates=/etc/ssl/certs/ca-certificates.crt
  [ ! -e "$certificates" ] || cp "$certificates" "$root$certificates"
  tar -C "$root" --exclude './proc/*' --exclude './sys/*' --exclude './dev/*' -c . |
    podman import --change "ENV SSL_CERT_FILE=$certificates" --change "ENV PIP_CERT=$certificates" - "$base" >/dev/null
  programs=$place/programs
  mkdir -p "$programs"
  "$python" - "$programs" <<'PYTHON'
import shutil, sys
from backhaul_local.binaries import find_mongod, find_nats_server, find_weed
for name, find in (("mongod", find_mongod), ("nats-server", find_nats_server), ("weed", find_weed)):
    shutil.copy(find(), f"{sys.argv[1]}/{name}")
PYTHON
  cp deploy/compose/tests/stand_ins/* "$programs/"
  for name in nats mongo minio mailpit $balancer; do
    build --build-arg "BASE=$base" -f "$programs/Dockerfile" --target "$name" -t "$(image_of "$name")" "$programs"
  done
}

if [ "${STAND_INS:-1}" = 1 ]; then stand_ins "$@"; fi
# What a clean checkout has, so that no secret of the test is put beside anybody's own.
rm -rf "$place/tree"
mkdir "$place/tree"
git ls-files -z --cached --others --exclude-standard | tar --null -T - --ignore-failed-read -c 2>/dev/null | tar -C "$place/tree" -x
PATH="$place/tools/bin:$PATH" "$python" tools/run_containers.py "$place/tree/deploy/compose" "$@"
