#!/usr/bin/env bash
# Builds a wheel of Horovod for the PyTorch that a Python has.
#
#   hack/horovod-wheel/build.sh PYTHON FOLDER
#
# Takes three minutes on two cores, and needs a C++ compiler and CMake 3. A wheel that is there for
# this Python, this PyTorch and this patch is not built again. Its path is printed at the end.
#
# Environment:
#   HOROVOD_GPU_OPERATIONS=NCCL   with NCCL (needs CUDA's toolkit); without it Gloo only
#   MAKEFLAGS=-j8                 how many compilers at a time (default: as many as CPUs)
set -euo pipefail

if [ $# -ne 2 ]; then
  sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
python=$1
folder=$2
version=0.28.1
sha256=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0
tools=("setuptools<81" wheel packaging cffi pyyaml cloudpickle psutil)

torch=$("$python" -c 'import torch; print(torch.__version__)') || {
  echo "build.sh: $python has no PyTorch: install it first, Horovod is built for one version of it" >&2
  exit 1
}
abi=$("$python" -c 'import sys; print(sys.implementation.cache_tag)')
recipe=$(cat "$here"/horovod-$version.patch "$here"/build.sh | sha256sum | cut -c1-8)
target=$folder/$abi-torch-$torch-$recipe${HOROVOD_GPU_OPERATIONS:+-$HOROVOD_GPU_OPERATIONS}
if ls "$target"/*.whl > /dev/null 2>&1; then
  ls "$target"/*.whl
  exit
fi
for tool in g++ patch; do
  command -v $tool > /dev/null || { echo "build.sh: $tool is missing" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# An environment of its own that sees PyTorch: the tools must not change the user's.
"$python" -m venv "$work/env"
"$python" -c 'import sys; print("\n".join(p for p in sys.path if p.endswith("-packages")))' \
  > "$("$work/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch.pth"
pip=("$work/env/bin/python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --ignore-installed "${tools[@]}"
if ! cmake --version 2> /dev/null | grep -q ' 3\.'; then  # CMake 4 refuses what 0.28.1 asks for
  "${pip[@]}" install 'cmake<4'
fi
export PATH=$work/env/bin:$PATH
"${pip[@]}" download --no-binary :all: --no-deps --no-build-isolation --dest "$work" horovod==$version
echo "$sha256  $work/horovod-$version.tar.gz" | sha256sum --check --quiet
tar --extract --gzip --file "$work/horovod-$version.tar.gz" --directory "$work"
patch --quiet --directory "$work/horovod-$version" --strip 1 < "$here/horovod-$version.patch"

export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
export HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_CPU_OPERATIONS=GLOO
export MAKEFLAGS=${MAKEFLAGS:--j$(nproc)} LDFLAGS="${LDFLAGS:-} -Wl,--strip-debug"
export CXXFLAGS="${CXXFLAGS:-} -include stdexcept -include cstdint"
echo "building Horovod $version for PyTorch $torch (some minutes)" >&2
if ! "${pip[@]}" wheel --no-build-isolation --no-deps --wheel-dir "$work/wheel" \
  "$work/horovod-$version" > "$work/log" 2>&1; then
  grep --max-count 20 --after-context 3 'error:\|Error:' "$work/log" >&2 || tail -40 "$work/log" >&2
  exit 1
fi
mkdir -p "$target"
mv "$work"/wheel/*.whl "$target/"
ls "$target"/*.whl
