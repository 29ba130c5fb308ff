#!/usr/bin/env bash
# Four hospitals first learn a reward from their clinicians' judgements, with privacy; then the model
# writes its own replies at each hospital, the reward scores them, and the model is tuned on that.
# Both studies are charged: the policy's budget has to hold the two together. Writes into runs/.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
wardround="${WARDROUND:-wardround}"
runs="${1:-runs}"
"$wardround" run "$here/reward.toml" --runs "$runs"
latest="$(cd "$(ls -dt "$runs"/reward-[0-9]* | head -n 1)" && pwd)"
sha256="$(sha256sum "$latest/adapter/adapter_model.safetensors" | cut -d ' ' -f 1)"
mkdir -p "$runs/federated-reward"
cp "$here/policy.toml" "$runs/federated-reward/policy.toml"
sed -e "s|@FOLDER@|$latest/adapter|" -e "s|@SHA256@|$sha256|" "$here/tuned.toml" \
  > "$runs/federated-reward/study.toml"
"$wardround" run "$runs/federated-reward/study.toml" --runs "$runs"
