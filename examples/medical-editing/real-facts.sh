#!/bin/sh
# MedCF and MedFE end to end over four hospitals: train a small base that knows the old answers,
# look where it keeps them, then run the federated study on it. A quarter of an hour of one core, most of
# it for the two bases.
#   sh examples/medical-editing/real-facts.sh [FOLDER WITH medcf_valid.json AND medfe_valid.json]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
data=${1:-$here/../../../shared/data}
out=${2:-runs/real-facts}
for name in medcf medfe; do
  file=$data/${name}_valid.json
  if [ ! -f "$file" ]; then
    echo "no $file: name the folder with the published files as the first argument" >&2
    exit 2
  fi
done
mkdir -p "$out"

run() { # name, options of base train, options of trace
  name=$1
  file=$data/${name}_valid.json
  # shellcheck disable=SC2086
  [ -d "$out/$name-base" ] || wardround base train --corpus "$file" --out "$out/$name-base" $2
  # shellcheck disable=SC2086
  wardround trace "$file" --base "$out/$name-base" $3
  sha=$(sed -n 's/.*"sha256": "\([0-9a-f]\{64\}\)".*/\1/p' "$out/$name-base/manifest.json" | head -1)
  for part in study policy; do
    sed "s|@BASE@|$out/$name-base|; s|@SHA256@|$sha|" "$here/$name.$part.toml" \
      > "$out/$name.$part.toml"
  done
  wardround run "$out/$name.study.toml" --data "$file"
}

run medcf "" "--rows subject+last --limit 20"
run medfe "--limit 40 --steps 400 --batch 16" "--rows last --limit 10"
