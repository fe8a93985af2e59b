# A simulated world in a temporary folder: TPMs (swtpm), a PKCS#11 token (SoftHSM), a LUKS2 volume.
# Sourced by simulators/quickstart and simulators/shell; runs on its own ground only.
#
#   WorldOpen             makes $WORLD (0700, a short path: unix sockets allow 107 bytes), enters it,
#                         and points keyescrow there: state, agent.toml with the TPM named `tpm`
#   WorldTpm NAME         starts a TPM with a state of its own; its TCTI is swtpm:path=NAME.sock
#   WorldTpmStop NAME     stops it
#   WorldToken LABEL      makes a token; an RSA-3072 key is born inside it; its PIN goes to ./pin
#   WorldClose            ends what was started, by process id, and removes the folder
# shellcheck shell=bash

WORLD=
WORLD_PROCESSES=()
WORLD_MODULE=
for world_candidate in /usr/lib/softhsm/libsofthsm2.so /usr/lib/*/softhsm/libsofthsm2.so \
  /usr/lib64/pkcs11/libsofthsm2.so; do
  if [ -e "$world_candidate" ]; then WORLD_MODULE=$world_candidate && break; fi
done

WorldOpen() {
  umask 077
  WORLD=$(mktemp -d /tmp/ks.XXXXXX)
  cd "$WORLD" || return 1
  # Nothing of the machine's own may leak in: no other token, TPM, configuration or secret.
  unset TPM2TOOLS_TCTI CREDENTIALS_DIRECTORY PKCS11_PROVIDER_MODULE
  export SOFTHSM2_CONF=$WORLD/softhsm2.conf
  export KEYESCROW_CONFIG=$WORLD/agent.toml KEYESCROW_STATE=$WORLD/state
  printf '[agent]\nhost = "quickstart"\ntpm = "swtpm:path=%s/tpm.sock"\n' "$WORLD" >agent.toml
  export HOME=$WORLD XDG_CONFIG_HOME=$WORLD/xdg XDG_DATA_HOME=$WORLD/xdg XDG_STATE_HOME=$WORLD/xdg
  export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C.UTF-8
}

# WorldRandomDigits COUNT prints so many random decimal digits.
WorldRandomDigits() {
  local digits=
  while [ ${#digits} -lt "$1" ]; do
    digits+=$(od -An -N32 -tu1 /dev/urandom | tr -d ' \n' | tr -cd 0-9)
  done
  printf '%s' "${digits:0:$1}"
}

WorldTpm() {
  local name=$1 tries
  mkdir -p "$name.tpm"
  swtpm socket --tpm2 --tpmstate dir="$name.tpm" --server type=unixio,path="$name.sock" \
    --ctrl type=unixio,path="$name.sock.ctrl" --flags not-need-init,startup-clear \
    </dev/null >"$name.log" 2>&1 &
  WORLD_PROCESSES+=($!)
  echo $! >"$name.pid"
  for ((tries = 0; tries < 100; tries++)); do
    # The files are there a moment before swtpm takes connections at them.
    [ "$(grep -Ec " 00010000 .* $name\.sock(\.ctrl)?\$" /proc/net/unix)" -lt 2 ] || return 0
    sleep 0.05
  done
  echo "error: swtpm did not start" >&2
  cat "$name.log" >&2
  return 1
}

WorldTpmStop() {
  local pid
  pid=$(cat "$1.pid")
  kill "$pid" 2>/dev/null
  wait "$pid" 2>/dev/null
  rm -f "$1.sock" "$1.sock.ctrl" "$1.pid"
}

WorldToken() {
  local label=$1 folder=$WORLD/tokens so_pin
  mkdir -p "$folder" "$WORLD/no-tokens"
  printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = true\n' \
    "$folder" >softhsm2.conf
  printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = true\n' \
    "$WORLD/no-tokens" >no-token.conf
  WorldRandomDigits 8 >pin
  so_pin=$(WorldRandomDigits 12)
  # pkcs11-tool reads the PINs from its environment, so that none stands in an argument list.
  local tool=(pkcs11-tool --module "$WORLD_MODULE")
  (
    export WORLD_SO_PIN=$so_pin WORLD_PIN
    WORLD_PIN=$(cat pin)
    "${tool[@]}" --slot-index 0 --init-token --label "$label" --so-pin env:WORLD_SO_PIN &&
      "${tool[@]}" --token-label "$label" --login --login-type so --so-pin env:WORLD_SO_PIN \
        --init-pin --new-pin env:WORLD_PIN &&
      "${tool[@]}" --token-label "$label" --login --pin env:WORLD_PIN --keypairgen \
        --key-type rsa:3072 --id 01 --label escrow --usage-decrypt
  ) >token.log 2>&1 || {
    echo "error: the token could not be made" >&2
    cat token.log >&2
    return 1
  }
}

WorldClose() {
  local pid
  for pid in "${WORLD_PROCESSES[@]}"; do
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
  done
  WORLD_PROCESSES=()
  if [ -n "$WORLD" ]; then
    cd / && rm -rf "$WORLD"
    WORLD=
  fi
  return 0
}
