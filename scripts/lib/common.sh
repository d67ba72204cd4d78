# Sourced by the scripts in scripts/: versions, places and the environment of a wasm build.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# The one place where tools that npm does not carry are pinned; npm's are in package.json.
WORKER_BUILD_VERSION=0.8.7   # equal to the `worker` crate's
WASM_BINDGEN_VERSION=0.2.129 # equal to `wasm-bindgen` in Cargo.lock, to the last digit
RUST_MIN_MINOR=91            # minimum of the `worker` crate
NIGHTLY_MIN_MINOR=96         # the oldest compiler with which a panic=unwind build was run
NIGHTLY_PIN=nightly-2026-05-20 # installed when no usable nightly is there
WASM_TARGET=wasm32-unknown-unknown

# Outside the checkout: these take many minutes to build, and every checkout can share them.
CACHE=${DAPHNE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/daphne-edge}
case $CACHE in /*) ;; *) CACHE=$PWD/$CACHE ;; esac
WORKER_BUILD_DIR=$CACHE/worker-build-$WORKER_BUILD_VERSION
WASM_BINDGEN_DIR=$CACHE/wasm-bindgen-$WASM_BINDGEN_VERSION
SHIMS=$CACHE/shims
VALGRIND_DIR=$CACHE/valgrind # only where it could not be installed
UNWIND_FILE=$CACHE/unwind-toolchain # one line: the name of the toolchain for panic=unwind builds

NODE_BIN=$ROOT/node_modules/node/bin
WORKER_BUILD=$WORKER_BUILD_DIR/bin/worker-build

# What worker-build would otherwise download by itself, from places which it chooses.
export WASM_BINDGEN_BIN=$WASM_BINDGEN_DIR/bin/wasm-bindgen
export WASM_OPT_BIN=$ROOT/node_modules/binaryen/bin/wasm-opt
export ESBUILD_BIN=$ROOT/node_modules/esbuild/bin/esbuild

# Node 22 from npm first: wrangler refuses older ones, and the machine's may be any.
export PATH=$NODE_BIN:$ROOT/node_modules/.bin:$PATH
export WRANGLER_SEND_METRICS=false

# An optimized build for the Workers runtime, beside what worker-build says to cargo. The library is compiled with the Worker:
# its sorting and printing as small as they can be, its arithmetic fast.
OPTIMIZED_CARGO_FLAGS=(
  --locked -Zbuild-std-features=panic-unwind,optimize_for_size
  --config profile.release.package.compiler_builtins.opt-level=3
)

say() { printf '%s\n' "$*"; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# macOS has neither of these two.
sha256() { if have sha256sum; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
limit() { # SECONDS COMMAND...
  # --foreground: whoever ends the process group of this script must reach the command, too.
  if timeout --foreground 1 true 2>/dev/null; then timeout --foreground "$@"; else shift && "$@"; fi
}

# "96" for rustc 1.96.0-nightly; nothing if the toolchain is not there.
rust_minor() {
  { RUSTUP_TOOLCHAIN=$1 rustc --version 2>/dev/null || :; } | sed -nE 's/^rustc 1\.([0-9]+)\..*/\1/p'
}

rust_sysroot() { RUSTUP_TOOLCHAIN=$1 rustc --print sysroot 2>/dev/null; }

has_wasm_target() {
  local libdir
  libdir=$(RUSTUP_TOOLCHAIN=$1 rustc --print target-libdir --target $WASM_TARGET 2>/dev/null) &&
    compgen -G "$libdir/libstd-*.rlib" >/dev/null
}

# The library source must be of the compiler's own version, so only the toolchain's copy counts.
has_rust_src() { [ -f "$(rust_sysroot "$1")/lib/rustlib/src/rust/library/std/Cargo.toml" ]; }

can_unwind() {
  local minor
  minor=$(rust_minor "$1")
  [ -n "$minor" ] && [ "$minor" -ge $NIGHTLY_MIN_MINOR ] && has_rust_src "$1"
}

# Debian's compiler brings no linker for wasm; rustup's stable does.
rust_lld() { find "$(rust_sysroot stable)/lib/rustlib" -path '*/bin/rust-lld' 2>/dev/null | head -n 1; }

# Says where valgrind is, to whoever asks by VALGRIND and VALGRIND_LIB; fails if it is nowhere. Asking it to run something
# shows whether it can, here.
find_valgrind() {
  local runs
  runs=$(command -v true)
  if have valgrind && valgrind -q --tool=callgrind --callgrind-out-file=/dev/null "$runs" >/dev/null 2>&1; then
    VALGRIND=$(command -v valgrind)
    export VALGRIND
    return 0
  fi
  VALGRIND=$VALGRIND_DIR/usr/bin/valgrind
  # Debian has had its tools in both places.
  VALGRIND_LIB=$(compgen -G "$VALGRIND_DIR/usr/lib*/valgrind/callgrind-*-linux" || compgen -G "$VALGRIND_DIR/usr/lib/*/valgrind/callgrind-*-linux") || return 1
  VALGRIND_LIB=$(dirname "${VALGRIND_LIB%%$'\n'*}")
  export VALGRIND VALGRIND_LIB
  "$VALGRIND" -q --tool=callgrind --callgrind-out-file=/dev/null "$runs" >/dev/null 2>&1
}
