#!/bin/sh
# Installs all programs with their completions and man pages.
# Usage: examples/install.sh [PREFIX]   PREFIX is /usr/local by default.
# PROGRAMS names a folder of programs that are built already; by default they are built here.
set -eu
mkdir -p "${1:-/usr/local}"
prefix=$(cd "${1:-/usr/local}" && pwd)
if [ -z "${PROGRAMS:-}" ]; then
    cd "$(dirname "$0")/.."
    cargo build --release --locked --bins
    PROGRAMS=target/release
fi
share=$prefix/share
bash=$share/bash-completion/completions fish=$share/fish/vendor_completions.d zsh=$share/zsh/site-functions
mkdir -p "$prefix/bin" "$share/man/man1" "$bash" "$fish" "$zsh"
for program in location storeserver storeput storeget storedel storeprimer storetest \
    locationstatus storestatus storeload storedump storelist storebench; do
    file=$PROGRAMS/$program
    install -m 755 "$file" "$prefix/bin/$program"
    "$file" --man-page >"$share/man/man1/$program.1"
    "$file" --completions bash >"$bash/$program"
    "$file" --completions fish >"$fish/$program.fish"
    "$file" --completions zsh >"$zsh/_$program"
done
echo "installed the programs in $prefix/bin, their man pages and completions in $share"
